//! Whither mail goes, and what keeps it from going.

use super::sink::Answer;
use super::*;
use relay_core::smtp::client::{ClientTls, PlainLogin};
use relay_core::smtp::options::{MailOptions, RcptOptions};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_rustls::TlsAcceptor;

/// An address where nobody listens.
fn closed_port() -> HostPort {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    HostPort { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() }
}

#[tokio::test]
async fn inbound_goes_inside_and_the_rest_to_the_smart_host() {
    let (mut inside, mut smart) = (Sink::usual().await, Sink::usual().await);
    let route = InsideRoute {
        domains: vec!["in.example".to_owned()],
        next_hop: NextHop::plain(vec![closed_port(), inside.host()]),
    };
    let gateway = Gateway::start(DeliverySettings { inside: vec![route], ..to_sink(&smart) });
    gateway.send("s@y.example", &["a@IN.example", "b@out.example"], b"x\r\n").await;
    // The inside route's first host is dead; its second takes over.
    assert_eq!(inside.next().await.to, ["a@in.example"]);
    assert_eq!(smart.next().await.to, ["b@out.example"]);
    gateway.until_empty().await;
    gateway.stop().await;
}

#[tokio::test]
async fn without_a_way_mail_waits_and_says_why() {
    let sink = Sink::usual().await;
    let nowhere = DeliverySettings { smart_host: None, ..to_sink(&sink) };
    let unresolved = {
        let host = HostPort { host: "nowhere.invalid".to_owned(), port: 25 };
        #[derive(Debug)]
        struct Fails;
        impl HostResolver for Fails {
            fn addresses<'a>(&'a self, _: &'a str) -> settings::Resolved<'a> {
                Box::pin(async { Err("no such domain".to_owned()) })
            }
        }
        let smart_host = Some(NextHop::plain(vec![host]));
        DeliverySettings { smart_host, resolver: Arc::new(Fails), ..to_sink(&sink) }
    };
    let dead = DeliverySettings {
        smart_host: Some(NextHop::plain(vec![closed_port()])),
        ..to_sink(&sink)
    };
    for (settings, reason) in [
        (nowhere, "no smart host is configured"),
        (unresolved, "no such domain"),
        (dead, "refused"),
    ] {
        let gateway = Gateway::start(settings);
        gateway.send("s@y.example", &["a@x.example"], b"x\r\n").await;
        gateway.until(|stats| stats.deferred == 1).await;
        let listed = gateway.listed().await;
        assert!(listed[0].error.as_deref().unwrap().contains(reason), "{listed:?}");
        gateway.stop().await;
    }
}

/// While a host that was down is left alone, its mail is deferred without an attempt; but not what
/// somebody asks to be tried now.
#[tokio::test]
async fn a_retry_that_is_asked_for_reaches_a_host_that_was_left_alone() {
    let up = Arc::new(AtomicBool::new(false));
    let script = {
        let up = Arc::clone(&up);
        move |line: &str| match line {
            "connect" if !up.load(Ordering::SeqCst) => Answer::Drop,
            _ => Answer::Usual,
        }
    };
    let mut sink = Sink::start(Arc::new(script), None).await;
    let suspend = Duration::from_secs(600);
    let gateway = Gateway::start(DeliverySettings { suspend, ..to_sink(&sink) });
    let first = gateway.send("s@y.example", &["a@x.example"], b"1\r\n").await;
    gateway.until(|stats| stats.deferred == 1).await;
    up.store(true, Ordering::SeqCst);
    gateway.send("s@y.example", &["b@x.example"], b"2\r\n").await;
    gateway.until(|stats| stats.deferred == 2).await;
    assert_eq!(sink.connections(), 1, "it is left alone");
    gateway.spool.retry(vec![first]).await.unwrap();
    assert_eq!(sink.next().await.content, b"1\r\n");
    gateway.stop().await;
}

/// A recipient that policy took as one of ours must not go out again: that would be a loop, or
/// relaying.
#[tokio::test]
async fn inbound_mail_without_an_inside_host_never_reaches_the_smart_host() {
    let mut sink = Sink::usual().await;
    let gateway = Gateway::start(to_sink(&sink));
    let recipients = vec![NewRecipient {
        address: "a@ours.example".to_owned(),
        options: RcptOptions::default(),
        route: Route::Inbound,
        rule: "domain ours.example".to_owned(),
    }];
    let message = NewMessage {
        reverse_path: "s@y.example".to_owned(),
        recipients,
        options: MailOptions::default(),
        binary: false,
        source: None,
        account: None,
        helo: "client.example".to_owned(),
        listener: "mx".to_owned(),
    };
    let writer = gateway.spool.begin(message).unwrap();
    writer.commit().await.unwrap();
    gateway.until(|stats| stats.deferred == 1).await;
    assert!(gateway.listed().await[0].error.as_deref().unwrap().contains("no inside host"));
    assert!(sink.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_loop_to_oneself_is_refused() {
    let mut sink = Sink::usual().await;
    let settings = to_sink(&sink);
    let own = OwnAddresses {
        addresses: vec![],
        listeners: vec![SocketAddr::new("0.0.0.0".parse().unwrap(), sink.address.port())],
    };
    let gateway = Gateway::start(DeliverySettings { own, ..settings });
    gateway.send("s@y.example", &["a@x.example"], b"x\r\n").await;
    // The DSN would loop as well.
    gateway.until(|stats| stats.badmail == 1 && stats.messages == 1).await;
    assert_eq!(sink.connections(), 0);
    assert!(sink.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn a_destination_that_hangs_does_not_hold_up_the_others() {
    let (hung, mut well) = (Sink::at("MAIL", Answer::Hang).await, Sink::usual().await);
    let route = InsideRoute {
        domains: vec!["hung.example".to_owned()],
        next_hop: NextHop::plain(vec![hung.host()]),
    };
    let (spool, folder) = Gateway::open();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..700 {
        let spool = spool.clone();
        tasks.spawn(async move {
            let to = if n < 600 { "a@hung.example" } else { "a@well.example" };
            store(&spool, "s@y.example", &[to], b"x\r\n").await
        });
    }
    tasks.join_all().await;
    let settings = DeliverySettings {
        inside: vec![route],
        shutdown_grace: Duration::from_millis(10),
        ..to_sink(&well)
    };
    let gateway = Gateway::over(spool, folder, settings);
    for _ in 0..100 {
        well.next().await;
    }
    gateway.until(|stats| stats.messages == 600).await;
    assert_eq!(hung.connections(), 10, "as many as one destination may have");
    gateway.stop().await;
}

#[tokio::test]
async fn a_long_backlog_goes_through_a_lane_in_turns() {
    let mut sink = Sink::usual().await;
    let (spool, folder) = Gateway::open();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1500 {
        let spool = spool.clone();
        tasks.spawn(async move {
            store(&spool, "s@y.example", &[&format!("{n}@x.example")], b"x\r\n").await
        });
    }
    tasks.join_all().await;
    let gateway = Gateway::over(spool, folder, to_sink(&sink));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..1500 {
        assert!(seen.insert(sink.next().await.to), "delivered twice");
    }
    gateway.until_empty().await;
    assert!(sink.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_cut_off_by_shutdown_stays_due() {
    let mut sink = Sink::at("content", Answer::Hang).await;
    let settings = DeliverySettings { shutdown_grace: Duration::from_millis(10), ..to_sink(&sink) };
    let gateway = Gateway::start(settings);
    gateway.send("s@y.example", &["a@x.example"], b"x\r\n").await;
    while sink.connections() == 0 {
        tokio::task::yield_now().await;
    }
    let spool = gateway.spool.clone();
    gateway.stop().await;
    let stats = spool.stats().await.unwrap();
    assert_eq!((stats.due, stats.messages), (1, 1));
    assert!(sink.is_empty());
}

fn tls_pair() -> (TlsAcceptor, Arc<rustls::ClientConfig>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), Arc::new(client))
}

fn over_tls(sink: &Sink, tls: ClientTls, config: &Arc<rustls::ClientConfig>) -> DeliverySettings {
    let hop =
        NextHop { tls, tls_config: Some(Arc::clone(config)), ..NextHop::plain(vec![sink.host()]) };
    DeliverySettings { smart_host: Some(hop), ..to_sink(sink) }
}

#[tokio::test]
async fn tls_is_used_where_offered_and_auth_inside_it() {
    let (acceptor, config) = tls_pair();
    let mut sink = Sink::start(Arc::new(|_| Answer::Usual), Some(acceptor)).await;
    let mut settings = over_tls(&sink, ClientTls::IfOffered, &config);
    let login = PlainLogin { name: "gate".to_owned(), password: "secret".to_owned() };
    settings.smart_host.as_mut().unwrap().login = Some(login);
    let gateway = Gateway::start(settings);
    let large = b".x\r\n".repeat(100_000);
    gateway.send("s@y.example", &["a@x.example"], &large).await;
    let taken = sink.next().await;
    assert!(taken.tls && taken.content == large);
    assert_eq!(taken.auth.as_deref(), Some("AGdhdGUAc2VjcmV0"));
    gateway.until_empty().await;
    gateway.stop().await;
}

#[tokio::test]
async fn required_tls_that_fails_defers_and_optional_tls_goes_without() {
    let (acceptor, _) = tls_pair();
    // A client that does not trust this certificate.
    let (_, stranger) = tls_pair();
    let mut sink = Sink::start(Arc::new(|_| Answer::Usual), Some(acceptor)).await;
    let gateway = Gateway::start(over_tls(&sink, ClientTls::Required, &stranger));
    gateway.send("s@y.example", &["a@x.example"], b"x\r\n").await;
    gateway.until(|stats| stats.deferred == 1).await;
    assert!(gateway.listed().await[0].error.as_deref().unwrap().contains("TLS"));
    assert!(sink.is_empty());
    gateway.stop().await;

    let gateway = Gateway::start(over_tls(&sink, ClientTls::IfOffered, &stranger));
    gateway.send("s@y.example", &["a@x.example"], b"x\r\n").await;
    assert!(!sink.next().await.tls);
    gateway.until_empty().await;
    gateway.stop().await;

    let plain = Sink::usual().await;
    let gateway = Gateway::start(over_tls(&plain, ClientTls::Required, &stranger));
    gateway.send("s@y.example", &["a@x.example"], b"x\r\n").await;
    gateway.until(|stats| stats.deferred == 1).await;
    gateway.stop().await;
}
