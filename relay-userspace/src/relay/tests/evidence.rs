//! Evidence from refusals, and what it costs those who only once do wrong.

use super::*;

/// There is no edge here, so that each question to it is counted.
#[tokio::test(flavor = "multi_thread")]
async fn the_edge_is_asked_about_a_stranger_only_when_a_ban_hangs_on_it() {
    let gateway = Gateway::start(MX);
    for (attempt, questions) in [(1, 0), (2, 0), (3, 1)] {
        let mut client = gateway.connect("127.0.0.9").await;
        client.reply().await;
        client.expect("EHLO client.test", "250").await;
        client.expect("MAIL FROM:<a@foreign.test>", "250").await;
        client.expect("RCPT TO:<b@elsewhere.test>", "550 5.7.1").await;
        assert_eq!(gateway.counted("evidence"), attempt);
        assert_eq!(gateway.counted("edge_unreachable"), questions, "at attempt {attempt}");
    }
}
