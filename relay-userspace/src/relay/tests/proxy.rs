//! Balancers that name their clients (haproxy's `proxy-protocol.txt`).

use super::*;

const BALANCER: &str = "127.0.0.5";
const OTHER: &str = "127.0.0.9";

fn behind_a_balancer(more: &str) -> String {
    format!("{MX}proxy_protocol = [\"{BALANCER}\"]\nrelay_for = [\"192.0.2.0/24\"]\n{more}")
}

/// Version 2, of TCP over IPv4.
fn version_2(source: [u8; 4]) -> Vec<u8> {
    let block = [&source[..], &[198, 51, 100, 1, 0xdb, 0x94, 0, 25]].concat();
    // With a TLV behind it.
    let block = [&block[..], b"\x04\0\x02xx"].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &[0, block.len() as u8], &block].concat()
}

/// Whether a client that begins so may relay, and what the banner was.
async fn relays(gateway: &Gateway, from: &str, header: &[u8]) -> bool {
    let mut client = gateway.connect(from).await;
    client.send(header).await;
    assert!(client.reply().await.starts_with("220 "), "{}", header.escape_ascii());
    client.expect("EHLO client.test", "250").await;
    client.expect("MAIL FROM:<a@foreign.test>", "250").await;
    client.say("RCPT TO:<b@elsewhere.test>").await.starts_with("250")
}

#[tokio::test]
async fn the_named_source_is_judged_and_not_the_balancer() {
    let gateway = Gateway::start(&behind_a_balancer(""));
    let named = b"PROXY TCP4 192.0.2.7 198.51.100.1 56212 25\r\n";
    assert!(relays(&gateway, BALANCER, named).await);
    assert!(relays(&gateway, BALANCER, &version_2([192, 0, 2, 7])).await);
    assert!(!relays(&gateway, BALANCER, &version_2([203, 0, 113, 7])).await);
    // Speaking for itself, it may what its own address may.
    assert!(!relays(&gateway, BALANCER, b"PROXY UNKNOWN\r\n").await);
    assert_eq!(gateway.counted("proxy_headers_refused"), 0);
    // And it answers for nobody: the second refusal speaks against the client, the third against
    // no one.
    assert_eq!(gateway.counted("evidence"), 1);
}

#[tokio::test]
async fn the_named_source_stands_in_received() {
    let gateway = Gateway::start(&behind_a_balancer(""));
    let mut client = gateway.connect(BALANCER).await;
    client.send(b"PROXY TCP6 2001:db8::7 2001:db8::1 56212 25\r\n").await;
    client.reply().await;
    client.start_message().await;
    let reply = client.expect("x\r\n.", "250").await;
    let stored = gateway.stored(&reply).await;
    assert!(stored.contains("[IPv6:2001:db8::7]") && !stored.contains(BALANCER), "{stored}");
}

/// From anybody else a header is a command like any other, and no source is taken from it.
#[tokio::test]
async fn a_stranger_who_forges_a_header_gains_nothing() {
    let gateway = Gateway::start(&behind_a_balancer(""));
    let mut client = gateway.connect(OTHER).await;
    client.reply().await;
    client.expect("PROXY TCP4 192.0.2.7 198.51.100.1 56212 25", "500").await;
    client.expect("EHLO client.test", "250").await;
    client.expect("MAIL FROM:<a@foreign.test>", "250").await;
    client.expect("RCPT TO:<b@elsewhere.test>", "550 5.7.1").await;
    let mut client = gateway.connect(OTHER).await;
    client.reply().await;
    client.send(&version_2([192, 0, 2, 7])).await;
    let reply = client.reply().await;
    assert!(reply.starts_with("5"), "{reply}");
    // Nor does a second header behind a balancer's: that one is the client's own.
    let mut client = gateway.connect(BALANCER).await;
    client.send(&version_2([203, 0, 113, 7])).await;
    client.reply().await;
    client.expect("PROXY TCP4 192.0.2.7 198.51.100.1 56212 25", "500").await;
    client.expect("EHLO client.test", "250").await;
    client.expect("MAIL FROM:<a@foreign.test>", "250").await;
    client.expect("RCPT TO:<b@elsewhere.test>", "550 5.7.1").await;
}

#[tokio::test]
async fn a_balancer_without_a_good_header_is_closed_and_counted() {
    let gateway = Gateway::start(&behind_a_balancer(""));
    let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8"[..], &[b'/'; 216]].concat();
    let long = [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n"].concat();
    let bad: [&[u8]; 5] =
        [b"EHLO client.test\r\n", b"PROXY TCP4 a b 1 2\r\n", &unix, &long, b"PROXY TCP4 192.0"];
    for (number, header) in bad.into_iter().enumerate() {
        let mut client = gateway.connect(BALANCER).await;
        client.send(header).await;
        // The last one says nothing more: it is closed when its time is over.
        client.closed().await;
        gateway.until_idle().await;
        assert_eq!(gateway.counted("proxy_headers_refused"), number as u64 + 1);
    }
    assert_eq!((gateway.counted("connections"), gateway.counted("evidence")), (0, 0));
}

#[tokio::test]
async fn limits_are_of_the_named_source_and_a_balancer_has_none() {
    let limits = "[limits]\nconnections_per_source = 1\n";
    let gateway = Gateway::start(&behind_a_balancer(limits));
    let mut clients = Vec::new();
    for last in [7, 7, 8] {
        let mut client = gateway.connect(BALANCER).await;
        client.send(&version_2([203, 0, 113, last])).await;
        let reply = client.reply().await;
        clients.push((client, reply));
    }
    let [first, second, third] = &mut clients[..] else { panic!() };
    assert!(first.1.starts_with("220 ") && third.1.starts_with("220 "));
    assert_eq!(second.1, "421 4.7.0 Too many connections from your address");
    second.0.closed().await;
    assert_eq!(gateway.counted("crowded_source"), 1);
}

#[tokio::test]
async fn early_talk_and_tls_come_behind_the_header() {
    let implicit = behind_a_balancer("tls = \"implicit\"\n");
    let gateway = Gateway::start(&implicit);
    let mut client = gateway.connect(BALANCER).await;
    client.send(&version_2([203, 0, 113, 7])).await;
    let mut client = client.into_tls().await.unwrap();
    assert!(client.reply().await.starts_with("220 "));

    let mut gateway = Gateway::bind(&behind_a_balancer(""));
    let mut client = gateway.connect(BALANCER).await;
    client.send(&[&version_2([203, 0, 113, 7])[..], b"EHLO spam.test\r\n"].concat()).await;
    gateway.serve();
    assert_eq!(client.reply().await, "554 5.5.0 You spoke before the greeting");
    assert_eq!((gateway.counted("early_talkers"), gateway.counted("evidence")), (1, 1));
}
