//! What clients read when the relay stops in the middle of their message.

use super::*;
use crate::queue::Filter;

#[tokio::test]
async fn a_message_that_does_not_end_in_time_is_cut_off_with_421() {
    let mut gateway = Gateway::start(MX);
    let mut clients = Vec::new();
    for unfinished in ["DATA\r\n", "BDAT 3\r\none"] {
        let mut client = gateway.connect("127.0.0.9").await;
        client.reply().await;
        client.expect("EHLO client.test", "250").await;
        client.expect("MAIL FROM:<a@foreign.test>", "250").await;
        client.expect("RCPT TO:<b@inside.test>", "250").await;
        client.send(unfinished.as_bytes()).await;
        client.reply().await;
        clients.push(client);
    }
    gateway.stop.cancel();
    let sessions = std::mem::take(&mut gateway.sessions);
    let ending = tokio::spawn(accepting::end(sessions));
    for client in &mut clients {
        assert!(client.reply().await.starts_with("421 4.3.2"));
        client.closed().await;
    }
    ending.await.unwrap();
    let stored = gateway.shared.spool.list(Filter::default(), None, 1).await.unwrap();
    assert!(stored.is_empty());
}
