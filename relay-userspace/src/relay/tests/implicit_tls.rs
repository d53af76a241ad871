//! TLS before anything else (RFC 8314).

use super::*;

const SUBMISSIONS: &str = "[[listener]]\nname = \"submissions\"\naddress = [\"127.0.0.1:0\"]\n\
                           tls = \"implicit\"\ndnsbl = false\n";

#[tokio::test]
async fn the_banner_comes_inside_tls_and_starttls_is_not_offered_again() {
    let gateway = Gateway::start(&(SUBMISSIONS.to_owned() + "auth = \"require\"\n"));
    let mut client = gateway.connect("127.0.0.9").await.into_tls().await.unwrap();
    assert!(client.reply().await.starts_with("220 mx.gateway.test"));
    let hello = client.expect("EHLO client.test", "250").await;
    assert!(hello.contains("AUTH PLAIN") && !hello.contains("STARTTLS"), "{hello}");
    client.expect("STARTTLS", "503").await;
    client.expect("MAIL FROM:<a@foreign.test>", "530 5.7.0 Authentication required").await;
    client.expect("QUIT", "221").await;
    client.closed().await;
    assert_eq!(gateway.counted("tls_sessions"), 1);
}

#[tokio::test]
async fn plain_text_is_closed_and_counted_as_no_handshake() {
    let gateway = Gateway::start(SUBMISSIONS);
    let mut client = gateway.connect("127.0.0.9").await;
    client.send(b"EHLO client.test\r\n").await;
    let mut rest = Vec::new();
    let _end_or_reset = client.stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"220") && !rest.starts_with(b"250"), "{}", rest.escape_ascii());
    gateway.until_idle().await;
    assert_eq!((gateway.counted("tls_failures"), gateway.counted("evidence")), (1, 0));
}

/// In its own time, not in that of a command.
#[tokio::test]
async fn a_handshake_that_does_not_come_ends_the_connection() {
    let limits = "[limits]\nhandshake_timeout = \"1s\"\n";
    let gateway = Gateway::start(&format!("{SUBMISSIONS}{limits}"));
    gateway.connect("127.0.0.9").await.closed().await;
    gateway.until_idle().await;
    assert_eq!(gateway.counted("tls_failures"), 1);
}

#[tokio::test]
async fn close_notify_in_data_stores_nothing() {
    let gateway = Gateway::start(SUBMISSIONS);
    let mut client = gateway.connect("127.0.0.9").await.into_tls().await.unwrap();
    client.reply().await;
    tls_sessions::ends_in_the_middle_of_data(client, gateway).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_client_that_never_begins() {
    let mut gateway = Gateway::start(SUBMISSIONS);
    let mut client = gateway.connect("127.0.0.9").await;
    while gateway.shared.admission.open_now() == 0 {
        tokio::task::yield_now().await;
    }
    gateway.stop.cancel();
    let sessions = std::mem::take(&mut gateway.sessions);
    timeout(Duration::from_secs(5), accepting::end(sessions)).await.expect("still waiting");
    client.closed().await;
}
