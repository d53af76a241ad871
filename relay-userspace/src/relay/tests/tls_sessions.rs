//! TLS by STARTTLS.

use super::*;

/// close_notify in the middle of a message: the session is over, and nothing of it is stored
/// (RFC 8446 section 6.1: no data follows; RFC 5321 section 4.1.1.4: no end of data, no message).
pub(super) async fn ends_in_the_middle_of_data(
    mut client: Client<TlsStream<TcpStream>>,
    gateway: Gateway,
) {
    client.start_message().await;
    client.send(b"Subject: half\r\n\r\nhalf a message\r\n").await;
    client.stream.get_mut().shutdown().await.unwrap();
    client.closed().await;
    gateway.until_idle().await;
    assert_eq!(gateway.messages().await, 0);
    assert_eq!((gateway.counted("messages_accepted"), gateway.counted("tls_sessions")), (0, 1));
}

#[tokio::test]
async fn close_notify_in_data_after_starttls_stores_nothing() {
    let gateway = Gateway::start(MX);
    let mut client = gateway.connect("127.0.0.9").await;
    client.reply().await;
    client.expect("EHLO client.test", "250").await;
    client.expect("STARTTLS", "220").await;
    ends_in_the_middle_of_data(client.into_tls().await.unwrap(), gateway).await;
}
