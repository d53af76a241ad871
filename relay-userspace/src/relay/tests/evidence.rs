//! Evidence from refusals, and what it costs those who only once do wrong.

use super::*;
use crate::queue::Filter;

/// There is no edge here, so that each question to it is counted: one at each connection, since the
/// port is none that the kernel's lists close, and another where a ban hangs on it.
#[tokio::test(flavor = "multi_thread")]
async fn the_edge_is_asked_about_a_stranger_only_when_a_ban_hangs_on_it() {
    let gateway = Gateway::start(MX);
    for (attempt, questions) in [(1, 1), (2, 2), (3, 4)] {
        let mut client = gateway.connect("127.0.0.9").await;
        client.reply().await;
        client.expect("EHLO client.test", "250").await;
        client.expect("MAIL FROM:<a@foreign.test>", "250").await;
        client.expect("RCPT TO:<b@elsewhere.test>", "550 5.7.1").await;
        assert_eq!(gateway.counted("evidence"), attempt);
        assert_eq!(gateway.counted("edge_unreachable"), questions, "at attempt {attempt}");
    }
}

/// Reports to senders come from there, so that somebody has to read what is answered.
#[tokio::test]
async fn the_gateways_own_postmaster_is_reached_by_every_name() {
    let gateway = Gateway::start(MX);
    let mut client = gateway.connect("127.0.0.9").await;
    client.reply().await;
    client.expect("EHLO client.test", "250").await;
    client.expect("MAIL FROM:<>", "250").await;
    client.expect("RCPT TO:<PostMaster@MX.gateway.test>", "250").await;
    client.expect("RCPT TO:<postmaster>", "250").await;
    client.expect("RCPT TO:<somebody@mx.gateway.test>", "550 5.7.1").await;
    client.expect("DATA", "354").await;
    client.expect("x\r\n.", "250").await;
    let queue = gateway.shared.spool.list(Filter::default(), None, 2).await.unwrap();
    assert_eq!((queue.len(), queue[0].recipients), (1, 1));
    assert_eq!(queue[0].first_recipient.as_deref(), Some("postmaster@inside.test"));
}
