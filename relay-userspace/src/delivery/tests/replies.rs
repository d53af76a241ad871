//! What becomes of a message, by what the next hop says and where.

use super::sink::Answer;
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test]
async fn content_arrives_byte_for_byte_and_connections_are_used_again() {
    let mut sink = Sink::usual().await;
    let mut settings = to_sink(&sink);
    settings.connections_per_destination_max = 1;
    let large = [b"Subject: large\r\n\r\n".to_vec(), b".line\r\n".repeat(60_000)].concat();
    let contents: [&[u8]; 6] = [
        b"Subject: x\r\n\r\nhello\r\n",
        b".\r\n..\r\n...\r\n",
        b"\r\n",
        b"Subject: \xff\xfe\0\r\n\r\n\x80\r\n",
        b"a very long line ",
        &large,
    ];
    let gateway = Gateway::start(settings);
    for content in contents {
        gateway.send("s@y.example", &["a@x.example"], content).await;
        let taken = sink.next().await;
        let whole =
            if content.ends_with(b"\r\n") { content.to_vec() } else { [content, b"\r\n"].concat() };
        assert!(taken.content == whole, "{:?}", String::from_utf8_lossy(content));
        assert_eq!((taken.from.as_str(), taken.to), ("s@y.example", vec!["a@x.example".into()]));
    }
    gateway.until_empty().await;
    assert_eq!(sink.connections(), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_ends_after_its_share_of_messages() {
    let mut sink = Sink::usual().await;
    let mut settings = to_sink(&sink);
    settings.connections_per_destination_max = 1;
    settings.messages_per_connection_max = 4;
    let (spool, folder) = Gateway::open();
    for _ in 0..10 {
        store(&spool, "s@y.example", &["a@x.example"], b"x\r\n").await;
    }
    let gateway = Gateway::over(spool, folder, settings);
    for _ in 0..10 {
        sink.next().await;
    }
    gateway.until_empty().await;
    assert_eq!(sink.connections(), 3);
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_that_died_of_idleness_costs_no_attempt() {
    let mails = AtomicUsize::new(0);
    let script = move |line: &str| {
        // Consulted twice for each command, so the second MAIL is the third time.
        if line.starts_with("MAIL") && mails.fetch_add(1, Ordering::SeqCst) == 2 {
            return Answer::Drop;
        }
        Answer::Usual
    };
    let mut sink = Sink::start(Arc::new(script), None).await;
    let mut settings = to_sink(&sink);
    settings.connections_per_destination_max = 1;
    settings.linger = Duration::from_secs(20);
    let gateway = Gateway::start(settings);
    for _ in 0..2 {
        gateway.send("s@y.example", &["a@x.example"], b"x\r\n").await;
        sink.next().await;
    }
    gateway.until_empty().await;
    assert_eq!(sink.connections(), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn each_recipient_has_a_fate_of_its_own_and_the_sender_is_told() {
    let script = |line: &str| match line {
        "RCPT TO:<later@x.example>" => Answer::Say("450 4.2.1 busy"),
        "RCPT TO:<never@x.example>" => Answer::Say("550 5.1.1 no such user"),
        _ => Answer::Usual,
    };
    let mut sink = Sink::start(Arc::new(script), None).await;
    let gateway = Gateway::start(to_sink(&sink));
    let to = ["good@x.example", "later@x.example", "never@x.example"];
    let id = gateway.send("s@y.example", &to, b"Subject: secret\r\n\r\nbody\r\n").await;
    let first = sink.next().await;
    assert_eq!(first.to, ["good@x.example"]);
    let dsn = sink.next().await;
    assert_eq!((dsn.from.as_str(), dsn.to), ("", vec!["s@y.example".to_owned()]));
    let text = String::from_utf8(dsn.content).unwrap();
    for part in [
        "Auto-Submitted: auto-replied\r\n",
        "From: Mail Delivery System <MAILER-DAEMON@gate.example>\r\n",
        "Final-Recipient: rfc822; never@x.example\r\n",
        "Status: 5.1.1\r\n",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n",
        "Remote-MTA: dns; 127.0.0.1\r\n",
        "Subject: secret\r\n",
        &format!("X-Postern-Queue-ID: {id}\r\n"),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("body\r\n") && !text.contains("later@"), "{text}");
    gateway.until(|stats| stats.messages == 1 && stats.deferred == 1).await;
    let left = gateway.spool.show(id).await.unwrap().unwrap();
    assert_eq!(left.recipients.len(), 1);
    assert_eq!(left.recipients[0].address, "later@x.example");
    assert!(left.recipients[0].error.as_deref().unwrap().contains("450 4.2.1 busy"));
    assert!(sink.is_empty());
    gateway.stop().await;
}

/// At every stage: 4xx and a lost connection defer, 5xx to the message bounces, 5xx to this host
/// defers.
#[tokio::test]
async fn the_stage_decides_between_later_and_never() {
    let stages = ["connect", "EHLO", "MAIL", "RCPT", "DATA", "content", "end"];
    let answers = [
        Answer::Say("451 4.3.0 later"),
        Answer::Say("550 5.7.1 never"),
        Answer::Say("421 4.3.2 closing"),
        Answer::Say("nonsense"),
        Answer::Drop,
    ];
    for stage in stages {
        for answer in answers.clone() {
            let sink = Sink::at(stage, answer.clone()).await;
            let (spool, folder) = Gateway::open();
            store(&spool, "s@y.example", &["a@x.example"], &b"x\r\n".repeat(5000)).await;
            let gateway = Gateway::over(spool, folder, to_sink(&sink));
            let refused = matches!(answer, Answer::Say("550 5.7.1 never"));
            let at_once = refused && ["MAIL", "RCPT", "DATA", "content", "end"].contains(&stage);
            let what = format!("{stage} {answer:?}");
            if at_once {
                // The DSN meets the same fate and has nobody to go to.
                gateway.until(|stats| stats.badmail == 1).await;
                let listed = gateway.listed().await;
                assert_eq!(listed.len(), 1, "{what}: {listed:?}");
                assert_eq!(listed[0].reverse_path, "", "{what}");
            } else if matches!(stage, "EHLO") && refused {
                // HELO does instead.
                gateway.until_empty().await;
            } else {
                gateway.until(|stats| stats.deferred == 1).await;
                let listed = gateway.listed().await;
                assert_eq!((listed.len(), listed[0].attempts), (1, 1), "{what}");
                assert!(listed[0].error.is_some(), "{what}");
            }
            gateway.stop().await;
        }
    }
}

/// Each refusal is a chance to lose sight of a recipient between two scans of the queue.
#[tokio::test]
async fn what_is_deferred_is_tried_again_until_it_is_taken_once() {
    let refusals = AtomicUsize::new(400);
    let script = move |line: &str| {
        let decrease = |n: usize| n.checked_sub(1);
        if line.starts_with("MAIL")
            && refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, decrease).is_ok()
        {
            return Answer::Say("451 4.3.0 not yet");
        }
        Answer::Usual
    };
    let mut sink = Sink::start(Arc::new(script), None).await;
    let retry =
        RetrySchedule { intervals: vec![Duration::from_millis(2)], ..RetrySchedule::default() };
    let gateway = Gateway::start(DeliverySettings { retry, ..to_sink(&sink) });
    for _ in 0..20 {
        gateway.send("s@y.example", &["a@x.example", "b@x.example"], b"x\r\n").await;
    }
    for _ in 0..20 {
        assert_eq!(sink.next().await.to.len(), 2);
    }
    gateway.until_empty().await;
    assert!(sink.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_too_old_is_given_up_with_a_dsn() {
    let script = |line: &str| {
        if line == "RCPT TO:<a@x.example>" { Answer::Say("450 4.2.2 full") } else { Answer::Usual }
    };
    let mut sink = Sink::start(Arc::new(script), None).await;
    let retry = RetrySchedule { expire: Duration::ZERO, ..RetrySchedule::default() };
    let gateway = Gateway::start(DeliverySettings { retry, ..to_sink(&sink) });
    gateway.send("s@y.example", &["a@x.example"], b"x\r\n").await;
    let text = String::from_utf8(sink.next().await.content).unwrap();
    assert!(text.contains("Status: 5.4.7\r\n") && text.contains("450 4.2.2 full"), "{text}");
    gateway.until_empty().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_bounce_is_never_bounced() {
    let mut sink = Sink::at("RCPT", Answer::Say("550 5.1.1 unknown")).await;
    let gateway = Gateway::start(to_sink(&sink));
    let id = gateway.send("", &["a@x.example"], b"x\r\n").await;
    gateway.until(|stats| stats.badmail == 1).await;
    let shown = gateway.spool.show(id).await.unwrap().unwrap();
    assert!(shown.badmail[0].1.contains("550 5.1.1 unknown"), "{shown:?}");
    assert_eq!(gateway.listed().await.len(), 1);
    assert!(sink.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn too_large_for_the_next_hop_is_returned_unsent() {
    let mut sink = Sink::usual().await;
    let gateway = Gateway::start(to_sink(&sink));
    gateway.send("s@y.example", &["a@x.example"], &b"x\r\n".repeat(300_001)).await;
    let text = String::from_utf8(sink.next().await.content).unwrap();
    assert!(text.contains("Status: 5.3.4\r\n"), "{text}");
    gateway.until_empty().await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_damaged_message_is_put_aside_and_the_rest_goes_on() {
    let mut sink = Sink::usual().await;
    let (spool, folder) = Gateway::open();
    let hurt = store(&spool, "s@y.example", &["a@x.example"], &b"x\r\n".repeat(9000)).await;
    std::fs::write(folder.path().join("bodies").join(hurt.to_string()), b"?").unwrap();
    store(&spool, "s@y.example", &["b@x.example"], b"x\r\n").await;
    let gateway = Gateway::over(spool, folder, to_sink(&sink));
    assert_eq!(sink.next().await.to, ["b@x.example"]);
    gateway.until(|stats| stats.quarantined == 1 && stats.messages == 1).await;
    assert_eq!(gateway.spool.damaged_total(), 1);
    gateway.stop().await;
}
