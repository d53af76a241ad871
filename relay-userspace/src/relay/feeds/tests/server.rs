//! An https server on loopback that answers each request as a test says, to the byte.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::control::api::Validators;
use crate::dns::test_server::{Behaviour, TestServer, resolver};
use crate::relay::feeds::address::Address;
use crate::relay::feeds::{Fetcher, Wanted};
use crate::tls;

pub(super) const HOST: &str = "feeds.example";

/// What comes after the request.
#[derive(Clone)]
pub(super) enum Then {
    /// These bytes, then the connection is closed as TLS has it.
    Say(Vec<u8>),
    /// These bytes, then the connection breaks without TLS's farewell.
    Break(Vec<u8>),
    /// These bytes, then nothing.
    Hang(Vec<u8>),
    /// These bytes, then a byte now and then.
    Drip(Vec<u8>, Duration),
    /// Waits for a permit, then [`Then::Say`].
    Held(Arc<Semaphore>, Vec<u8>),
}

/// The answer for a path, made from the request as it came.
type Answers = Arc<dyn Fn(&str) -> Then + Send + Sync>;

pub(super) struct Https {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Https {
    pub(super) async fn start(
        at: &str,
        pems: &[PathBuf; 3],
        answer: impl Fn(&str) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(tls::load(&pems[1], &pems[2]).unwrap().config);
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer): (_, Answers) = (Arc::clone(&requests), Arc::new(answer));
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    // A client that does not like the certificate is no fault of the server.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        request.push(byte);
                    }
                    let request = String::from_utf8(request).unwrap();
                    seen.lock().unwrap().push(request.clone());
                    say(&mut stream, answer(&request)).await;
                });
            }
        });
        Self { address, requests, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// The client may go before the end; that is its right.
async fn say(stream: &mut tokio_rustls::server::TlsStream<tokio::net::TcpStream>, then: Then) {
    if let Then::Held(gate, _) = &then {
        gate.acquire().await.unwrap().forget();
    }
    let (Then::Say(bytes)
    | Then::Break(bytes)
    | Then::Hang(bytes)
    | Then::Drip(bytes, _)
    | Then::Held(_, bytes)) = &then;
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    match then {
        Then::Say(_) | Then::Held(..) => drop(stream.shutdown().await),
        Then::Break(_) => {}
        Then::Hang(_) => std::future::pending().await,
        Then::Drip(_, every) => {
            let mut every = tokio::time::interval(every);
            while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {
                every.tick().await;
            }
        }
    }
}

/// A whole answer.
pub(super) fn answer(status: &str, headers: &[&str], body: &[u8]) -> Then {
    let mut text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Then::Say([text.as_bytes(), body].concat())
}

/// An authority, and a pair that it vouches for: paths of authority, chain and key.
pub(super) fn authority(dir: &Path, names: &[&str]) -> [PathBuf; 3] {
    std::fs::create_dir_all(dir).unwrap();
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let paths = ["ca.pem", "cert.pem", "key.pem"].map(|name| dir.join(name));
    std::fs::write(&paths[0], authority.pem()).unwrap();
    std::fs::write(&paths[1], leaf.pem()).unwrap();
    std::fs::write(&paths[2], key.serialize_pem()).unwrap();
    paths
}

/// Name server, authority and a fetcher that trusts in both.
pub(super) struct Lab {
    pub(super) names: TestServer,
    pub(super) pems: [PathBuf; 3],
    pub(super) fetcher: Fetcher,
    pub(super) dir: tempfile::TempDir,
}

impl Lab {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = TestServer::start(&[(HOST, Behaviour::a(&["127.0.0.1"], 60))]).await;
        let pems = authority(dir.path(), &[HOST, "other.example", "127.0.0.1", "::1"]);
        let folder = dir.path().join("content");
        std::fs::create_dir(&folder).unwrap();
        let fetcher = Fetcher::new(resolver(&names), folder);
        Self { names, pems, fetcher, dir }
    }

    pub(super) async fn serve(
        &self,
        answer: impl Fn(&str) -> Then + Send + Sync + 'static,
    ) -> Https {
        Https::start("127.0.0.1:0", &self.pems, answer).await
    }

    pub(super) fn wanted(&self, host: &str, port: u16) -> Wanted {
        Wanted {
            name: "drop".to_owned(),
            address: Address::parse(&format!("https://{host}:{port}/drop.txt?key=secret")).unwrap(),
            validators: Validators::default(),
            bytes_max: 1 << 20,
            authorities: Some(self.pems[0].clone()),
        }
    }

    /// What is left in the fetcher's folder.
    pub(super) fn left_behind(&self) -> usize {
        std::fs::read_dir(&self.fetcher.folder).unwrap().count()
    }
}

/// As [`crate::relay::feeds::address::is_inside`], in a world where 127.0.0.1 is the internet.
pub(super) fn only_two_is_inside(address: IpAddr) -> bool {
    address == IpAddr::from([127, 0, 0, 2])
}
