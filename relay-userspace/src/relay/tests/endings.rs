//! How a session ends that the relay breaks off.

use super::*;

/// Otherwise its sender would try again for days.
#[tokio::test]
async fn who_sends_far_too_much_still_reads_why_it_is_refused() {
    let gateway = Gateway::start(&format!("{MX}[limits]\nmessage_size = \"64KiB\"\n"));
    let mut client = gateway.connect("127.0.0.9").await;
    client.reply().await;
    client.start_message().await;
    let line = [b"x".repeat(998), b"\r\n".to_vec()].concat();
    client.send(&line.repeat(12_000)).await;
    client.send(b".\r\n").await;
    assert!(client.reply().await.starts_with("552 5.3.4"));
}
