//! Deadlines of the dialogue, over memory and with time standing still until nothing else can be
//! done.

use crate::delivery::link::{Link, TlsStart};
use crate::queue::{Content, LoadedMessage};
use relay_core::smtp::client::{
    ClientJob, ClientSettings, ClientTls, Failure, FailureKind, OutgoingMessage, RecipientStatus,
    Stage,
};
use relay_core::smtp::options::MailOptions;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// Plays `script` as the server, a reply for each thing heard, then falls silent. Returns how the
/// attempt ended and how long it took.
async fn silent_after(script: &'static [&'static str], size: usize) -> (Failure, Duration) {
    let (ours, mut theirs) = tokio::io::duplex(1000);
    tokio::spawn(async move {
        let mut heard = [0; 1000];
        for (index, text) in script.iter().enumerate() {
            if index > 0 && theirs.read(&mut heard).await.unwrap_or(0) == 0 {
                return;
            }
            theirs.write_all(text.as_bytes()).await.unwrap();
        }
        std::future::pending::<()>().await;
        drop(theirs);
    });
    let settings = ClientSettings { tls: ClientTls::Off, ..ClientSettings::default() };
    let message =
        OutgoingMessage { recipients: vec!["a@x.example".into()], ..OutgoingMessage::default() };
    let job = ClientJob { settings: Arc::new(settings), message };
    let tls = TlsStart {
        config: None,
        host: "x.example".to_owned(),
        handshake_timeout: Duration::from_secs(1),
    };
    let mut link = Link::new(Box::new(ours), job, tls, "peer".to_owned());
    let stored = LoadedMessage {
        id: "0000000000000".parse().unwrap(),
        reverse_path: String::new(),
        received: SystemTime::now(),
        size: size as u64,
        eight_bit: false,
        binary: false,
        options: MailOptions::default(),
        content: Content::Inline(vec![b'x'; size].into()),
    };
    let started = Instant::now();
    let outcome = link.settle(&stored).await;
    let took = started.elapsed();
    link.quit().await;
    let RecipientStatus::Failed(failure) = outcome.recipients[0].clone() else {
        panic!("{outcome:?}")
    };
    (failure, took)
}

/// RFC 5321 section 4.5.3.2: five minutes for greeting and commands, two for DATA, three for a
/// chunk, ten for the end.
#[tokio::test(start_paused = true)]
async fn a_silent_server_costs_its_deadline_and_no_more() {
    const HELLO: &str = "250 sink\r\n";
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    for (script, size, stage, deadline) in [
        (&[][..], 10, Stage::Greeting, minutes(5)),
        (&["220 sink\r\n"][..], 10, Stage::Hello, minutes(5)),
        (&["220 sink\r\n", HELLO][..], 10, Stage::Mail, minutes(5)),
        (&["220 sink\r\n", HELLO, HELLO][..], 10, Stage::Mail, minutes(5)),
        (&["220 sink\r\n", HELLO, HELLO, HELLO][..], 10, Stage::Data, minutes(5)),
        // The server takes nothing of a content larger than the pipe.
        (
            &["220 sink\r\n", HELLO, HELLO, HELLO, "354 go\r\n"][..],
            9000,
            Stage::Content,
            minutes(3),
        ),
        (&["220 sink\r\n", HELLO, HELLO, HELLO, "354 go\r\n"][..], 10, Stage::Content, minutes(10)),
    ] {
        let (failure, took) = silent_after(script, size).await;
        assert_eq!(failure, Failure { stage, kind: FailureKind::TimedOut });
        assert!(took >= deadline && took < deadline + Duration::from_secs(1), "{stage} {took:?}");
        assert!(!failure.is_permanent());
    }
}
