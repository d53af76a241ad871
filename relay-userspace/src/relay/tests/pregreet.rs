//! Who speaks before the banner, and in what tongue.

use super::*;

const EARLY: &[u8] = b"EHLO spam.test\r\n";

#[tokio::test]
async fn what_came_with_the_handshake_is_early_talk() {
    let mut gateway = Gateway::bind(MX);
    let mut client = gateway.connect("127.0.0.9").await;
    client.send(EARLY).await;
    gateway.serve();
    assert_eq!(client.reply().await, "554 5.5.0 You spoke before the greeting");
    client.closed().await;
    assert_eq!((gateway.counted("early_talkers"), gateway.counted("evidence")), (1, 1));
}

/// Somebody forgot to list it: a ban would take all its clients with it.
#[tokio::test]
async fn a_balancer_that_is_not_listed_is_refused_and_no_evidence() {
    for header in
        [&b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 25\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"]
    {
        let mut gateway = Gateway::bind(MX);
        let mut client = gateway.connect("127.0.0.9").await;
        client.send(header).await;
        gateway.serve();
        let reply = client.reply().await;
        assert_eq!(reply, "554 5.5.0 A PROXY header is not taken from your address");
        client.closed().await;
        let counted = ["proxy_headers_unlisted", "early_talkers", "evidence"];
        assert_eq!(counted.map(|name| gateway.counted(name)), [1, 0, 0]);
    }
}

#[tokio::test]
async fn who_waits_is_greeted_and_who_does_not_is_refused() {
    let gateway = Gateway::start(&format!("{MX}[limits]\npregreet_wait = \"1s\"\n"));
    let (mut honest, mut early) =
        (gateway.connect("127.0.0.8").await, gateway.connect("127.0.0.9").await);
    early.send(EARLY).await;
    assert_eq!(early.reply().await, "554 5.5.0 You spoke before the greeting");
    assert!(honest.reply().await.starts_with("220 mx.gateway.test"));
    honest.expect("EHLO client.test", "250").await;
    assert_eq!(gateway.counted("early_talkers"), 1);
}

#[tokio::test]
async fn known_sources_neither_wait_nor_are_blamed() {
    let relaying = MX.to_owned() + "relay_for = [\"127.0.0.16/28\"]\n";
    let limits = "[limits]\npregreet_wait = \"60s\"\n[filter]\nallow = [\"127.0.0.32/28\"]\n";
    let mut gateway = Gateway::bind(&format!("{relaying}{limits}"));
    let mut clients = [gateway.connect("127.0.0.17").await, gateway.connect("127.0.0.33").await];
    clients[0].send(EARLY).await;
    gateway.serve();
    for client in &mut clients {
        assert!(client.reply().await.starts_with("220 "));
    }
    assert!(clients[0].reply().await.starts_with("250-"), "what came early was lost");
    assert_eq!((gateway.counted("early_talkers"), gateway.counted("evidence")), (0, 0));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_silence_to_end() {
    let gateway = Gateway::start(&format!("{MX}[limits]\npregreet_wait = \"60s\"\n"));
    let mut client = gateway.connect("127.0.0.9").await;
    while gateway.shared.admission.open_now() == 0 {
        tokio::task::yield_now().await;
    }
    gateway.stop.cancel();
    assert!(client.reply().await.starts_with("421 4.3.2"));
}

#[tokio::test]
async fn other_protocols_are_refused_and_counted() {
    for (said, refusal, counter, evidence) in [
        (&b"\x16\x03\x01\x02\x00\x01"[..], "554 5.5.0 TLS", "tls_on_plain_port", 0),
        (b"\x80\x2e\x01\x03\x01", "554 5.5.0 TLS", "tls_on_plain_port", 0),
        (b"\x03\0\0\x13", "554 5.5.0 This is SMTP", "binary_clients", 1),
        (b"GET / HTTP/1.1\r\n", "554 5.5.0 This is SMTP, not HTTP", "http_clients", 1),
    ] {
        let gateway = Gateway::start(MX);
        let mut client = gateway.connect("127.0.0.9").await;
        assert!(client.reply().await.starts_with("220 "));
        client.send(said).await;
        let reply = client.reply().await;
        assert!(reply.starts_with(refusal), "{counter}: {reply}");
        client.closed().await;
        gateway.until_idle().await;
        assert_eq!(gateway.counted(counter), 1, "{counter}");
        assert_eq!(gateway.counted("evidence"), evidence, "{counter}");
    }
}
