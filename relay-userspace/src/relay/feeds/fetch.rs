//! One fetch: a conditional GET, its redirects, and the content in a file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, USER_AGENT,
};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::fs::File;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::FetchError;
use super::address::{Address, is_inside};
use super::answer::{Meaning, meaning};
use super::body::{self, Pace};
use super::connect::{self, Connected, Reach};
use crate::{control::api::Validators, dns::Resolver, tls};

/// Redirects that are followed. Publishers move a list once, to a mirror or another host.
pub const REDIRECTS_MAX: usize = 3;
const HEADER_BYTES_MAX: usize = 64 * 1024;
const AGENT: &str = concat!("postern/", env!("CARGO_PKG_VERSION"));

/// What to fetch.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The feed's name: letters, digits, hyphens.
    pub name: String,
    pub address: Address,
    /// Of the content that is at hand; none where there is none.
    pub validators: Validators,
    pub bytes_max: u64,
    /// A PEM file of authorities to trust beside the system's.
    pub authorities: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub enum Fetched {
    Content(Content),
    /// The content at hand is still what the server has.
    Unchanged,
}

/// A feed's content, whole.
#[derive(Debug)]
pub struct Content {
    /// At its start; without a name, so that it is gone once this is.
    pub file: File,
    pub bytes: u64,
    pub validators: Validators,
}

/// How long a fetch may take, step by step.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub connect: connect::Patience,
    /// From the request to the end of the answer's header.
    pub header: Duration,
    pub body: Pace,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: connect::Patience {
                each: Duration::from_secs(15),
                next: Duration::from_secs(1),
            },
            header: Duration::from_secs(30),
            body: Pace { grace: Duration::from_secs(30), bytes_s_min: 8 * 1024 },
        }
    }
}

/// Fetches feeds. Connections are not kept: there are hours between two fetches.
#[derive(Debug)]
pub struct Fetcher {
    pub resolver: Resolver,
    /// Where content is kept until it has been handed over.
    pub folder: PathBuf,
    pub patience: Patience,
    /// Where a stranger's redirect may not lead: [`is_inside`], but for tests.
    pub is_inside: fn(IpAddr) -> bool,
}

impl Fetcher {
    pub fn new(resolver: Resolver, folder: PathBuf) -> Self {
        Self { resolver, folder, patience: Patience::default(), is_inside }
    }

    /// Asks for a feed, once.
    ///
    /// # Errors
    /// There is no new content and no word that there is none.
    pub async fn fetch(&self, wanted: &Wanted) -> Result<Fetched, FetchError> {
        let tls = trust(wanted.authorities.clone()).await?;
        let mut address = wanted.address.clone();
        let mut reach = Reach::Anywhere;
        for _ in 0..=REDIRECTS_MAX {
            let connected = connect::connect(&address, reach, self, &tls).await?;
            // Who was asked inside may lead to others inside, a stranger may not.
            if !connected.inside {
                reach = Reach::Public;
            }
            let (answer, connection) = self.ask(connected, &address, &wanted.validators).await?;
            let (head, body) = answer.into_parts();
            let conditional = wanted.validators != Validators::default();
            match meaning(&address, conditional, &head, SystemTime::now())? {
                Meaning::Unchanged => return Ok(Fetched::Unchanged),
                Meaning::Redirect(to) => address = to,
                Meaning::Content(validators) => {
                    let mut file = body::nameless(&self.folder, &wanted.name).await?;
                    let (max, pace) = (wanted.bytes_max, self.patience.body);
                    let bytes = body::receive(body, &mut file, max, pace).await?;
                    drop(connection);
                    return Ok(Fetched::Content(Content { file, bytes, validators }));
                }
            }
        }
        Err(FetchError::Redirects(REDIRECTS_MAX))
    }

    /// The answer's header, and what drives the connection while its body is read.
    async fn ask(
        &self,
        connected: Connected,
        address: &Address,
        validators: &Validators,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), FetchError> {
        let failed = |error: hyper::Error| FetchError::Http {
            host: address.to_string(),
            error: body::because(&error),
        };
        let request = request(address, validators)?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEADER_BYTES_MAX)
            .handshake(TokioIo::new(connected.stream))
            .await
            .map_err(failed)?;
        // Its end is seen by whoever reads the answer.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = connection.await;
        }));
        match timeout(self.patience.header, sender.send_request(request)).await {
            Ok(answer) => Ok((answer.map_err(failed)?, connection)),
            Err(_) => {
                Err(FetchError::Silent { host: address.to_string(), after: self.patience.header })
            }
        }
    }
}

/// The authorities as they are now: the system's may be renewed while the relay runs.
async fn trust(authorities: Option<PathBuf>) -> Result<Arc<ClientConfig>, FetchError> {
    let read = tokio::task::spawn_blocking(move || tls::verified(authorities.as_deref()));
    let config = read.await.map_err(|error| FetchError::Disk(error.into()))??;
    let mut config = Arc::unwrap_or_clone(config);
    // RFC 7301: who speaks HTTP/2 as well has to know which it is.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn request(
    address: &Address,
    validators: &Validators,
) -> Result<Request<Empty<Bytes>>, FetchError> {
    let mut request = Request::get(address.target())
        .header(HOST, address.to_string())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        // What is unpacked may be a thousand times as large; the lists are not.
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close");
    // Both, as RFC 9110 section 13.2.2 has servers prefer the first.
    if let Some(etag) = &validators.etag {
        request = request.header(IF_NONE_MATCH, etag);
    }
    if let Some(date) = &validators.last_modified {
        request = request.header(IF_MODIFIED_SINCE, date);
    }
    request.body(Empty::new()).map_err(|error| FetchError::Address(error.to_string()))
}
