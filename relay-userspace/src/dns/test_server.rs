//! A real DNS server on loopback, over UDP and TCP, for the tests of this module.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Metadata, ResponseCode};
use hickory_resolver::proto::rr::rdata::{PTR, SOA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use super::resolver::{Resolver, ResolverSettings};

/// What the server does when it is asked for a name.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    Records(Vec<RData>, u32),
    ServerFailure,
    Refused,
    Silent,
    /// Answers once this is notified.
    Held(Arc<tokio::sync::Semaphore>, Vec<RData>),
}

impl Behaviour {
    pub(crate) fn a(addresses: &[&str], ttl_s: u32) -> Self {
        let data = |a: &&str| RData::A(a.parse::<std::net::Ipv4Addr>().unwrap().into());
        Self::Records(addresses.iter().map(data).collect(), ttl_s)
    }

    pub(crate) fn aaaa(addresses: &[&str], ttl_s: u32) -> Self {
        let data = |a: &&str| RData::AAAA(a.parse::<std::net::Ipv6Addr>().unwrap().into());
        Self::Records(addresses.iter().map(data).collect(), ttl_s)
    }

    pub(crate) fn txt(strings: &[&str], ttl_s: u32) -> Self {
        let strings = strings.iter().map(|s| (*s).to_owned()).collect();
        Self::Records(vec![RData::TXT(TXT::new(strings))], ttl_s)
    }

    pub(crate) fn ptr(names: &[&str]) -> Self {
        let data = |n: &&str| RData::PTR(PTR(Name::from_ascii(n).unwrap()));
        Self::Records(names.iter().map(data).collect(), 60)
    }
}

#[derive(Clone, Default)]
struct Zone {
    names: Arc<Mutex<HashMap<String, Behaviour>>>,
    questions: Arc<Mutex<HashMap<String, usize>>>,
    asked: Arc<AtomicUsize>,
}

pub(crate) struct TestServer {
    zone: Zone,
    pub(crate) address: SocketAddr,
    _server: Server<Zone>,
}

/// A resolver that asks this server alone, with time enough for a busy machine.
pub(crate) fn resolver(server: &TestServer) -> Resolver {
    Resolver::new(&ResolverSettings {
        servers: vec![server.address],
        timeout: Duration::from_secs(2),
        attempts: 1,
        deadline: Duration::from_secs(3),
    })
    .unwrap()
}

impl TestServer {
    pub(crate) async fn start(names: &[(&str, Behaviour)]) -> Self {
        let zone = Zone::default();
        // The port that UDP got may be taken for TCP: then another pair is tried.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let mut server = Server::new(zone.clone());
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 64 * 1024);
        let server = Self { zone, address, _server: server };
        for (name, behaviour) in names {
            server.set(name, behaviour.clone());
        }
        server
    }

    pub(crate) fn set(&self, name: &str, behaviour: Behaviour) {
        self.zone.names.lock().unwrap().insert(name.to_owned(), behaviour);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.zone.names.lock().unwrap().remove(name);
    }

    /// How often a name was asked for.
    pub(crate) fn questions(&self, name: &str) -> usize {
        self.zone.questions.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// How many questions came in all.
    pub(crate) fn asked(&self) -> usize {
        self.zone.asked.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl RequestHandler for Zone {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut handle: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let query = request.queries.queries()[0].original().clone();
        let name = query.name().to_ascii().to_ascii_lowercase();
        let name = name.trim_end_matches('.').to_owned();
        self.asked.fetch_add(1, Ordering::SeqCst);
        *self.questions.lock().unwrap().entry(name.clone()).or_default() += 1;
        let behaviour = self.names.lock().unwrap().get(&name).cloned();
        let exists = behaviour.is_some();
        let (data, ttl_s) = match behaviour {
            None => (Vec::new(), 0),
            Some(Behaviour::Records(data, ttl_s)) => (data, ttl_s),
            Some(Behaviour::Held(gate, data)) => {
                gate.acquire().await.unwrap().forget();
                (data, 60)
            }
            Some(Behaviour::ServerFailure) => {
                metadata.response_code = ResponseCode::ServFail;
                (Vec::new(), 0)
            }
            Some(Behaviour::Refused) => {
                metadata.response_code = ResponseCode::Refused;
                (Vec::new(), 0)
            }
            Some(Behaviour::Silent) => return std::future::pending().await,
        };
        let of_type = |data: &RData| data.record_type() == query.query_type();
        let record = |data| Record::from_rdata(query.name().clone(), ttl_s, data);
        let answers: Vec<Record> = data.into_iter().filter(of_type).map(record).collect();
        if !exists {
            metadata.response_code = ResponseCode::NXDomain;
        }
        let root = Name::from_ascii("example.").unwrap();
        let soa = SOA::new(root.clone(), root.clone(), 1, 3600, 600, 86400, 120);
        let soa = Record::from_rdata(root, 300, RData::SOA(soa));
        let soa: Vec<Record> = answers.is_empty().then_some(soa).into_iter().collect();
        debug_assert_ne!(query.query_type(), RecordType::ANY);
        let response = MessageResponseBuilder::from_message_request(request);
        let none: [Record; 0] = [];
        let message = response.build(metadata, &answers, &none, &soa, &none);
        handle.send_response(message).await.unwrap()
    }
}
