use relay_core::dnsbl::health::Fault;
use relay_core::dnsbl::meaning::Silence;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::dns::test_server::{Behaviour, TestServer, resolver};

fn zone(name: &str) -> Zone {
    let mut zone = Zone::new(name, &format!("{name}.example")).unwrap();
    zone.policy = vec!["127.0.0.10-127.0.0.11".parse().unwrap()];
    zone.v6 = name == "six";
    zone
}

/// A list that passes its IPv4 tests.
async fn server_of(zone: &str, names: &[(&str, Behaviour)]) -> TestServer {
    let server = TestServer::start(&[]).await;
    let under = |name: &str| format!("{name}.{zone}.example");
    server.set(&under("2.0.0.127"), Behaviour::a(&["127.0.0.2"], 60));
    for (name, behaviour) in names {
        server.set(&under(name), behaviour.clone());
    }
    server
}

async fn service(server: &TestServer, zones: Vec<Zone>) -> Arc<DnsblService> {
    let deadline = Duration::from_secs(2);
    let settings = DnsblSettings { zones, deadline, ..DnsblSettings::default() };
    let service = Arc::new(DnsblService::new(resolver(server), settings));
    service.test_all().await;
    service
}

async fn finding(service: &Arc<DnsblService>, address: &str) -> Finding {
    service.check(address.parse().unwrap()).await.remove(0).finding
}

#[tokio::test]
async fn what_a_list_answers_is_what_is_found() {
    let server = server_of(
        "bl",
        &[
            ("1.2.0.192", Behaviour::a(&["127.0.0.2"], 60)),
            ("2.2.0.192", Behaviour::a(&["127.0.0.10"], 60)),
            ("3.2.0.192", Behaviour::a(&["127.255.255.254"], 60)),
            ("4.2.0.192", Behaviour::a(&["198.51.100.9"], 60)),
            ("5.2.0.192", Behaviour::ServerFailure),
            ("6.2.0.192", Behaviour::Silent),
        ],
    )
    .await;
    let service = service(&server, vec![zone("bl")]).await;
    let listed = service.check("192.0.2.1".parse().unwrap()).await;
    let list = listed_by("192.0.2.1".parse().unwrap(), &listed);
    assert_eq!(list.len(), 1);
    assert!(list[0].evidence);
    assert_eq!(list[0].answers, "127.0.0.2");
    assert_eq!(list[0].refusal.text, "Client host [192.0.2.1] is listed by bl (bl.example)");

    let policy = service.check("192.0.2.2".parse().unwrap()).await;
    assert!(policy[0].is_listed() && !listed_by("192.0.2.2".parse().unwrap(), &policy)[0].evidence);

    let silence = |s| Finding::Opinion(Opinion::None(s));
    let code = Silence::ErrorCode("127.255.255.254".parse().unwrap());
    assert_eq!(finding(&service, "192.0.2.3").await, silence(code));
    let outside = Silence::OutsideLoopback("198.51.100.9".parse().unwrap());
    assert_eq!(finding(&service, "192.0.2.4").await, silence(outside));
    assert!(matches!(finding(&service, "192.0.2.5").await, Finding::Failed(DnsError::Server(_))));
    let silent = finding(&service, "192.0.2.6").await;
    assert!(
        matches!(silent, Finding::TooLate | Finding::Failed(DnsError::Timeout(_))),
        "{silent:?}"
    );
    assert_eq!(finding(&service, "192.0.2.7").await, Finding::Opinion(Opinion::NotListed));
    assert_eq!(finding(&service, "2001:db8::1").await, Finding::NotAsked);
}

#[tokio::test]
async fn answers_are_kept_and_errors_are_not() {
    let server = server_of(
        "bl",
        &[("1.2.0.192", Behaviour::a(&["127.0.0.2"], 1)), ("5.2.0.192", Behaviour::ServerFailure)],
    )
    .await;
    let service = service(&server, vec![zone("bl")]).await;
    let address = "192.0.2.1".parse().unwrap();
    assert!(service.cached(address).is_empty());
    assert!(!service.check(address).await[0].cached);
    let before = server.questions("1.2.0.192.bl.example");
    assert!(service.check(address).await[0].cached, "a TTL of a second is a minute here");
    assert!(service.cached("::ffff:192.0.2.1".parse().unwrap())[0].is_listed());
    assert_eq!(server.questions("1.2.0.192.bl.example"), before);

    finding(&service, "192.0.2.7").await;
    finding(&service, "192.0.2.7").await;
    assert_eq!(server.questions("7.2.0.192.bl.example"), 1, "absence is kept, too");

    finding(&service, "192.0.2.5").await;
    let after_one = server.questions("5.2.0.192.bl.example");
    server.set("5.2.0.192.bl.example", Behaviour::a(&["127.0.0.2"], 60));
    assert!(service.check("192.0.2.5".parse().unwrap()).await[0].is_listed());
    assert!(server.questions("5.2.0.192.bl.example") > after_one);
}

#[tokio::test]
async fn what_is_kept_dies_with_its_ttl() {
    let server = server_of("bl", &[("1.2.0.192", Behaviour::a(&["127.0.0.2"], 90))]).await;
    let service = service(&server, vec![zone("bl")]).await;
    assert!(service.check("192.0.2.1".parse().unwrap()).await[0].is_listed());
    server.remove("1.2.0.192.bl.example");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(89)).await;
    let results = service.cached("192.0.2.1".parse().unwrap());
    assert!(results[0].is_listed());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(service.cached("192.0.2.1".parse().unwrap()).is_empty());
    tokio::time::resume();
    assert_eq!(finding(&service, "192.0.2.1").await, Finding::Opinion(Opinion::NotListed));
}

#[test]
fn ttls_are_clamped() {
    let secs = Duration::from_secs;
    let of = |records: &[u8], ttl| ttl_of(records, ttl);
    fn ttl_of(records: &[u8], ttl: Option<u64>) -> Duration {
        super::ttl(&Answer { records: records.to_vec(), ttl: ttl.map(Duration::from_secs) })
    }
    assert_eq!(of(&[1], Some(0)), secs(60));
    assert_eq!(of(&[1], Some(600)), secs(600));
    assert_eq!(of(&[1], Some(86_400)), secs(3600));
    assert_eq!(of(&[], None), secs(300));
    assert_eq!(of(&[], Some(900)), secs(900));
}

#[tokio::test]
async fn lists_are_asked_at_once_and_a_slow_one_does_not_hold_the_rest() {
    let server = server_of("bl", &[("1.2.0.192", Behaviour::a(&["127.0.0.2"], 60))]).await;
    server.set("2.0.0.127.slow.example", Behaviour::a(&["127.0.0.2"], 60));
    server.set("1.2.0.192.slow.example", Behaviour::Silent);
    let service = service(&server, vec![zone("slow"), zone("bl")]).await;
    let started = std::time::Instant::now();
    let results = service.check("192.0.2.1".parse().unwrap()).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(!results[0].is_listed() && results[1].is_listed());
}

#[tokio::test]
async fn many_connections_ask_once() {
    let gate = Arc::new(Semaphore::new(0));
    let answer = vec![hickory_resolver::proto::rr::RData::A(Ipv4Addr::new(127, 0, 0, 2).into())];
    let held = Behaviour::Held(gate.clone(), answer);
    let server = server_of("bl", &[("1.2.0.192", held)]).await;
    let service = service(&server, vec![zone("bl")]).await;
    let mut checks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let service = service.clone();
        checks.spawn(async move { service.check("192.0.2.1".parse().unwrap()).await });
    }
    let under_way = || service.settings.lookups_max - service.lookups.available_permits();
    while under_way() < 20 || server.questions("1.2.0.192.bl.example") == 0 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1000);
    for results in checks.join_all().await {
        assert!(results[0].is_listed());
    }
    assert_eq!(server.questions("1.2.0.192.bl.example"), 1);
}

#[tokio::test]
async fn beyond_the_limit_of_lookups_there_is_no_opinion() {
    let server = server_of("bl", &[("1.2.0.192", Behaviour::a(&["127.0.0.2"], 60))]).await;
    let zones = vec![zone("bl")];
    let settings = DnsblSettings { zones, lookups_max: 0, ..DnsblSettings::default() };
    let service = Arc::new(DnsblService::new(resolver(&server), settings));
    service.test_all().await;
    assert_eq!(finding(&service, "192.0.2.1").await, Finding::Failed(DnsError::Busy));
}

#[tokio::test]
async fn a_list_that_fails_its_test_is_not_asked_until_it_recovers() {
    let server = server_of("bl", &[("1.2.0.192", Behaviour::a(&["127.0.0.2"], 60))]).await;
    server.set("1.0.0.127.bl.example", Behaviour::a(&["127.0.0.2"], 60));
    let service = service(&server, vec![zone("bl")]).await;
    let asked = server.asked();
    let untrusted = finding(&service, "192.0.2.1").await;
    let fault = Fault::ListsEverything;
    assert_eq!(untrusted, Finding::Untrusted(State::Unhealthy { fault, passed: 0 }));
    assert_eq!(server.asked(), asked);
    server.remove("1.0.0.127.bl.example");
    service.test_all().await;
    assert!(matches!(finding(&service, "192.0.2.1").await, Finding::Untrusted(_)));
    service.test_all().await;
    assert!(matches!(finding(&service, "192.0.2.1").await, Finding::Opinion(_)));
    // What was kept from better days does not count once the list is dead.
    server.remove("2.0.0.127.bl.example");
    service.test_all().await;
    assert!(matches!(finding(&service, "192.0.2.1").await, Finding::Untrusted(_)));
    assert!(matches!(
        service.cached("192.0.2.1".parse().unwrap())[0].finding,
        Finding::Untrusted(_)
    ));
}

#[tokio::test]
async fn ipv6_is_asked_of_lists_that_have_it_and_tested_by_itself() {
    let server = server_of("six", &[]).await;
    let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
    server.set(&format!("{nibbles}.six.example"), Behaviour::a(&["127.0.0.4"], 60));
    let service = service(&server, vec![zone("six")]).await;
    assert!(matches!(finding(&service, "2001:db8::1").await, Finding::Untrusted(_)));
    assert_eq!(finding(&service, "192.0.2.1").await, Finding::Opinion(Opinion::NotListed));
    let zeros = "0.".repeat(20);
    server.set(
        &format!("2.0.0.0.0.0.f.7.f.f.f.f.{zeros}six.example"),
        Behaviour::a(&["127.0.0.2"], 60),
    );
    service.test_all().await;
    service.test_all().await;
    assert!(service.check("2001:db8::1".parse().unwrap()).await[0].is_listed());
}

#[tokio::test]
async fn watching_tests_the_lists_and_ends_when_told() {
    let server = server_of("bl", &[]).await;
    let settings = DnsblSettings {
        zones: vec![zone("bl")],
        recovery_interval: Duration::from_millis(20),
        ..DnsblSettings::default()
    };
    let service = Arc::new(DnsblService::new(resolver(&server), settings));
    let stop = CancellationToken::new();
    let watcher = tokio::spawn(service.clone().watch(stop.clone()));
    while service.states()[0].1 != State::Healthy {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    watcher.await.unwrap();
}
