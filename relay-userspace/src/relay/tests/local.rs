//! Mail from programs of this machine, by LMTP over a Unix socket.

use std::os::unix::fs::PermissionsExt;

use nix::unistd::{User, geteuid};
use tokio::net::UnixStream;

use super::*;

const LMTP: &str = "[lmtp]\nsocket = \"{folder}/lmtp.sock\"\n";

/// As [`LMTP`], where this process may send anywhere.
fn for_us() -> String {
    let us = User::from_uid(geteuid()).unwrap().expect("a user with a name");
    format!("{LMTP}relay_for_users = [\"{}\"]\n{MX}", us.name)
}

impl Gateway {
    async fn connect_locally(&self) -> Client<UnixStream> {
        let path = self.folder.path().join("lmtp.sock");
        let mut client = Client::new(UnixStream::connect(path).await.unwrap());
        assert_eq!(client.reply().await, "220 mx.gateway.test LMTP Postern");
        client
    }
}

#[tokio::test]
async fn each_recipient_has_its_reply_and_the_field_names_the_user() {
    let gateway = Gateway::start(&for_us());
    let mut client = gateway.connect_locally().await;
    let hello = client.expect("LHLO list.test", "250").await;
    assert!(!hello.contains("STARTTLS") && !hello.contains("AUTH"), "{hello}");
    client.expect("MAIL FROM:<a@inside.test>", "250").await;
    client.expect("RCPT TO:<b@inside.test>", "250").await;
    client.expect("RCPT TO:<c@foreign.test>", "250").await;
    client.expect("DATA", "354").await;
    client.send(b"Subject: x\r\n\r\ntext\r\n.\r\n").await;
    let replies = [client.reply().await, client.reply().await];
    assert!(replies.iter().all(|reply| reply.starts_with("250 2.0.0")), "{replies:?}");
    assert_eq!(gateway.messages().await, 1);
    let stored = gateway.stored(&replies[0]).await;
    let uid = geteuid();
    let begin = format!("Received: from list.test (local user, uid {uid})\r\n\tby mx.gateway.test");
    assert!(stored.starts_with(&begin) && stored.contains(" with LMTP\r\n"), "{stored}");
    assert!(stored.contains("\r\nDate: ") && stored.contains("\r\nMessage-ID: <"), "{stored}");
    client.expect("QUIT", "221").await;
    client.closed().await;
}

/// All of them together, as 127.0.0.1.
#[tokio::test]
async fn local_users_are_one_source_to_the_limits() {
    let limits = "[limits]\nconnections_per_source = 1\n";
    let gateway = Gateway::start(&format!("{}{limits}", for_us()));
    let mut first = gateway.connect_locally().await;
    let path = gateway.folder.path().join("lmtp.sock");
    let mut second = Client::new(UnixStream::connect(path).await.unwrap());
    assert!(second.reply().await.starts_with("421 4.7.0"));
    assert_eq!(gateway.counted("crowded_source"), 1);
    first.expect("QUIT", "221").await;
    gateway.until_idle().await;
    gateway.connect_locally().await;
}

#[tokio::test]
async fn content_without_a_header_does_not_go_on_with_our_fields() {
    let gateway = Gateway::start(&for_us());
    let mut client = gateway.connect_locally().await;
    client.expect("LHLO list.test", "250").await;
    client.expect("MAIL FROM:<a@inside.test>", "250").await;
    client.expect("RCPT TO:<b@inside.test>", "250").await;
    client.expect("DATA", "354").await;
    client.send(b"\tinjected\r\nSubject: x\r\n\r\ntext\r\n.\r\n").await;
    let stored = gateway.stored(&client.reply().await).await;
    let (fields, body) = stored.split_once("\r\n\r\n").expect("an empty line");
    assert!(fields.starts_with("Received: ") && fields.contains("\r\nMessage-ID: <"), "{stored}");
    assert_eq!(body, "\tinjected\r\nSubject: x\r\n\r\ntext\r\n");
}

#[tokio::test]
async fn who_is_not_named_may_not_relay_and_is_never_evidence() {
    let gateway = Gateway::start(&(LMTP.to_owned() + MX));
    let mut client = gateway.connect_locally().await;
    client.expect("EHLO list.test", "500").await;
    client.expect("LHLO list.test", "250").await;
    client.expect("MAIL FROM:<a@inside.test>", "250").await;
    client.expect("RCPT TO:<c@foreign.test>", "550 5.7.1 Relaying is prohibited").await;
    client.expect("RCPT TO:<c%foreign.test@inside.test>", "550").await;
    client.expect("RCPT TO:<b@inside.test>", "250").await;
    client.expect("QUIT", "221").await;
    gateway.until_idle().await;
    assert_eq!((gateway.counted("evidence"), gateway.counted("recipients_inbound")), (0, 1));
}

/// Not even where all of loopback may relay by port 25, or where nobody may.
#[tokio::test]
async fn lists_of_addresses_say_nothing_of_it() {
    let mx = format!("{MX}relay_for = [\"127.0.0.0/8\"]\n");
    let gateway = Gateway::start(&format!("{LMTP}{mx}"));
    let mut client = gateway.connect_locally().await;
    client.expect("LHLO list.test", "250").await;
    client.expect("MAIL FROM:<a@inside.test>", "250").await;
    client.expect("RCPT TO:<c@foreign.test>", "550").await;

    let gateway = Gateway::start(&(for_us() + "[relay]\nnever_route = [\"0.0.0.0/0\"]\n"));
    let mut client = gateway.connect_locally().await;
    client.expect("LHLO list.test", "250").await;
    client.expect("MAIL FROM:<a@inside.test>", "250").await;
    client.expect("RCPT TO:<c@foreign.test>", "250").await;
}

#[tokio::test]
async fn a_stop_ends_its_sessions_and_takes_the_file_away() {
    let mut gateway = Gateway::start(&format!("{LMTP}mode = \"0620\"\n{MX}"));
    let path = gateway.folder.path().join("lmtp.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o620);
    let mut client = gateway.connect_locally().await;
    gateway.stop.cancel();
    let sessions = std::mem::take(&mut gateway.sessions);
    timeout(Duration::from_secs(5), accepting::end(sessions)).await.expect("still waiting");
    assert!(client.reply().await.starts_with("421 4.3.2"));
    client.closed().await;
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_had_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &str, extra: &str| {
        let path = folder.path().join(path).display().to_string();
        let text = format!("[lmtp]\nsocket = \"{path}\"\n{extra}");
        let config = config::parse(Path::new("test.toml"), &text).unwrap();
        Local::open(&config.lmtp.unwrap())
            .map_err(|error| format!("{error:#}").replace(&path, "SOCKET"))
    };
    let problem = |path, extra| open(path, extra).unwrap_err();
    assert_eq!(
        problem("a", "relay_for_users = [\"nobody-of-that-name\"]\n"),
        "lmtp.relay_for_users: there is no user \"nobody-of-that-name\" on this machine; make or \
         remove it"
    );
    assert_eq!(
        problem("a", "group = \"no-such-group\"\n"),
        "lmtp.group: there is no group \"no-such-group\" on this machine; make it or name another"
    );
    assert_eq!(
        problem("none/a", ""),
        "lmtp.socket: cannot open the socket SOCKET: its folder does not exist; make it"
    );
    fs::write(folder.path().join("file"), "precious").unwrap();
    assert_eq!(problem("file", ""), "lmtp.socket: SOCKET exists and is no socket; move it away");
    let held = open("a", "").unwrap();
    assert_eq!(
        problem("a", ""),
        "lmtp.socket: another postern is already serving SOCKET; stop it first"
    );
    drop(held);
    open("a", "").unwrap();
}
