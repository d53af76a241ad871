//! What senders ask for in MAIL and RCPT: handed on where the next hop takes it, honoured here where
//! it does not.

use super::sink::Answer;
use super::*;
use relay_core::smtp::options::{Notify, OriginalRecipient, Returned};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

/// A message with options, each recipient with its own.
async fn send(gateway: &Gateway, to: &[(&str, RcptOptions)], mail: MailOptions, content: &[u8]) {
    let recipients = to.iter().map(|(address, options)| NewRecipient {
        address: (*address).to_owned(),
        options: options.clone(),
        route: Route::Relay,
        rule: "test".to_owned(),
    });
    let message = NewMessage {
        reverse_path: "s@y.example".to_owned(),
        recipients: recipients.collect(),
        options: mail,
        binary: false,
        source: None,
        account: None,
        helo: "client.example".to_owned(),
        listener: "mx".to_owned(),
    };
    let mut writer = gateway.spool.begin(message).unwrap();
    writer.write(content).unwrap();
    writer.commit().await.unwrap();
}

fn notify(wanted: Notify) -> RcptOptions {
    RcptOptions { notify: Some(wanted), orcpt: OriginalRecipient::parse("rfc822;list@y.example") }
}

/// RFC 3461 section 5.2.2: the next hop sends no reports, so this gateway sends them.
#[tokio::test]
async fn reports_are_sent_as_they_were_asked_for() {
    let script = |line: &str| match line {
        _ if line.starts_with("RCPT TO:<no") => Answer::Say("550 5.1.1 no such user"),
        _ => Answer::Usual,
    };
    let mut sink = Sink::start(Arc::new(script), None).await;
    let gateway = Gateway::start(to_sink(&sink));
    let to = [
        ("yes-told@x.example", notify(Notify::SUCCESS)),
        ("yes@x.example", notify(Notify::FAILURE)),
        ("no-silent@x.example", notify(Notify::NEVER)),
        ("no-success@x.example", notify(Notify::SUCCESS)),
        ("no-told@x.example", notify(Notify::FAILURE)),
    ];
    let mail = MailOptions {
        ret: Some(Returned::Full),
        envid: Some("QQ1".to_owned()),
        ..MailOptions::default()
    };
    send(&gateway, &to, mail, b"Subject: x\r\n\r\nthe body\r\n").await;
    assert_eq!(sink.next().await.to, ["yes-told@x.example", "yes@x.example"]);
    let dsn = sink.next().await;
    let text = String::from_utf8(dsn.content).unwrap();
    for part in [
        "Original-Envelope-Id: QQ1\r\n",
        "Original-Recipient: rfc822; list@y.example\r\nFinal-Recipient: rfc822; yes-told@x.example\r\nAction: relayed\r\nStatus: 2.0.0\r\n",
        "Final-Recipient: rfc822; no-told@x.example\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Content-Type: message/rfc822\r\n",
        "the body\r\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(text.matches("Final-Recipient").count(), 2, "{text}");
    gateway.until_empty().await;
    // Silence was asked for, and nothing else happened.
    send(&gateway, &to[2..3], MailOptions::default(), b"x\r\n").await;
    gateway.until_empty().await;
    assert!(sink.is_empty());
    gateway.stop().await;
}

/// A host that knows the extensions is asked in turn, and reports by itself.
#[tokio::test]
async fn options_go_to_the_next_hop_that_offers_them() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let script = move |line: &str| {
        log.lock().unwrap().push(line.to_owned());
        match line {
            _ if line.starts_with("EHLO") => Answer::Say("250-sink\r\n250-DSN\r\n250 SMTPUTF8"),
            _ => Answer::Usual,
        }
    };
    let mut sink = Sink::start(Arc::new(script), None).await;
    let gateway = Gateway::start(to_sink(&sink));
    let mail = MailOptions {
        utf8: true,
        ret: Some(Returned::Headers),
        envid: Some("a b".to_owned()),
        ..MailOptions::default()
    };
    send(&gateway, &[("yes@x.example", notify(Notify::SUCCESS))], mail, b"Subject: x\r\n").await;
    sink.next().await;
    gateway.until_empty().await;
    assert!(sink.is_empty());
    let heard = heard.lock().unwrap();
    for line in [
        "MAIL FROM:<s@y.example> SMTPUTF8 RET=HDRS ENVID=a+20b",
        "RCPT TO:<yes@x.example> NOTIFY=SUCCESS ORCPT=rfc822;list@y.example",
    ] {
        assert!(heard.iter().any(|said| said == line), "{line} in {heard:?}");
    }
}

/// A mail store behind a Unix socket: LMTP, Return-Path, and a fate for each recipient at the end.
#[tokio::test]
async fn lmtp_is_the_final_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lmtp");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let store = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let (reader, mut writer) = socket.into_split();
        let mut lines = tokio::io::BufReader::new(reader).lines();
        let mut said = Vec::new();
        writer.write_all(b"220 store LMTP\r\n").await.unwrap();
        let mut in_content = false;
        while let Some(line) = lines.next_line().await.unwrap() {
            let reply = match line.as_str() {
                "." => "250 2.1.5 stored\r\n452 4.2.2 over quota\r\n",
                "DATA" => "354 go\r\n",
                "QUIT" => break,
                _ if in_content => "",
                _ => "250 ok\r\n",
            };
            in_content = (in_content || line == "DATA") && line != ".";
            writer.write_all(reply.as_bytes()).await.unwrap();
            said.push(line);
        }
        said
    });
    let host = HostPort { host: path.display().to_string(), port: 0 };
    let gateway = Gateway::start(DeliverySettings {
        hostname: "gate.example".to_owned(),
        smart_host: Some(NextHop { lmtp: true, ..NextHop::plain(vec![host]) }),
        linger: Duration::from_millis(1),
        ..DeliverySettings::default()
    });
    gateway.send("s@y.example", &["a@x.example", "b@x.example"], b"Subject: x\r\n\r\n").await;
    let left = gateway.until(|stats| stats.deferred == 1).await;
    assert_eq!(left.messages, 1);
    let said = store.await.unwrap();
    assert_eq!(said[0], "LHLO gate.example");
    let content = said.iter().skip_while(|line| *line != "DATA").skip(1);
    let content: Vec<&str> = content.map(String::as_str).collect();
    assert_eq!(content, ["Return-Path: <s@y.example>", "Subject: x", "", "."]);
    assert_eq!(gateway.listed().await[0].first_recipient.as_deref(), Some("b@x.example"));
    gateway.stop().await;
}

/// RFC 6531, RFC 8689: what the next hop cannot keep is not sent, and the sender hears why. A
/// message for verified TLS alone is not returned in full.
#[tokio::test]
async fn what_the_next_hop_cannot_keep_is_returned() {
    let mut sink = Sink::usual().await;
    let gateway = Gateway::start(to_sink(&sink));
    let utf8 = MailOptions { utf8: true, ..MailOptions::default() };
    let to = [("a@x.example", RcptOptions::default())];
    send(&gateway, &to, utf8, "Subject: ü\r\n\r\n".as_bytes()).await;
    // The report returns the header section, and so is in UTF-8 itself: it can go nowhere either.
    gateway.until(|stats| stats.badmail == 1).await;
    let required =
        MailOptions { require_tls: true, ret: Some(Returned::Full), ..MailOptions::default() };
    send(&gateway, &to, required, b"Subject: x\r\n\r\nsecret\r\n").await;
    gateway.until(|stats| stats.badmail == 2).await;
    assert!(sink.is_empty());
    gateway.stop().await;
}
