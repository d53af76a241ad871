use std::time::Duration;

use super::*;
use crate::smtp::client::PlainLogin;
use crate::smtp::options::{Notify, OriginalRecipient, RcptOptions, Returned};

const OFFER: &str = "250-mx\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 STARTTLS\r\n";

#[expect(clippy::disallowed_methods, reason = "there is no other way to an Instant to count from")]
fn start() -> Instant {
    Instant::now()
}

/// A session and what it did last, as text.
struct Dialogue {
    session: ClientSession,
    now: Instant,
}

impl Dialogue {
    fn new(settings: ClientSettings, message: OutgoingMessage) -> Self {
        let now = start();
        let job = ClientJob { settings: Arc::new(settings), message };
        Self { session: ClientSession::new(job, now), now }
    }

    fn actions(&mut self) -> Vec<ClientAction> {
        std::iter::from_fn(|| self.session.next_action()).collect()
    }

    fn hear(&mut self, bytes: &str) -> Vec<ClientAction> {
        self.session.push(bytes.as_bytes(), self.now);
        self.actions()
    }

    /// What is written in reply to `bytes`; nothing else may be asked for.
    fn talk(&mut self, bytes: &str) -> String {
        let written = |action| match action {
            ClientAction::Write(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        self.hear(bytes).into_iter().map(written).collect()
    }
}

fn settings(tls: ClientTls) -> ClientSettings {
    ClientSettings { helo: "gate.example".to_owned(), tls, ..ClientSettings::default() }
}

fn message(recipients: &[&str]) -> OutgoingMessage {
    OutgoingMessage {
        reverse_path: "s@a.example".to_owned(),
        recipients: recipients.iter().map(|&recipient| recipient.into()).collect(),
        size: Some(99),
        ..OutgoingMessage::default()
    }
}

fn outcome(actions: &[ClientAction]) -> &Outcome {
    actions
        .iter()
        .find_map(|action| match action {
            ClientAction::Done(outcome) => Some(outcome),
            _ => None,
        })
        .unwrap_or_else(|| panic!("not done: {actions:?}"))
}

fn failure(actions: &[ClientAction]) -> &Failure {
    match &outcome(actions).recipients[0] {
        RecipientStatus::Failed(failure) => failure,
        RecipientStatus::Delivered(response) => panic!("{response}"),
    }
}

#[test]
fn pipelined_message_with_one_recipient_refused() {
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["a@x", "b@x", "c@x"]));
    assert_eq!(dialogue.talk("220 mx\r\n"), "EHLO gate.example\r\n");
    assert_eq!(
        dialogue.talk(OFFER),
        "MAIL FROM:<s@a.example> SIZE=99\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\n"
    );
    assert_eq!(dialogue.talk("250 ok\r\n250 ok\r\n450 4.2.1 later\r\n250"), "");
    assert_eq!(dialogue.talk(" ok\r\n"), "DATA\r\n");
    assert_eq!(dialogue.hear("354 go\r\n"), [ClientAction::SendBody]);
    dialogue.session.content_sent(dialogue.now);
    let actions = dialogue.hear("250 2.0.0 queued as 1\r\n");
    let statuses = &outcome(&actions).recipients;
    assert!(matches!(&statuses[0], RecipientStatus::Delivered(response) if response.code == 250));
    assert!(matches!(&statuses[1], RecipientStatus::Failed(failure)
        if !failure.is_permanent() && failure.stage == Stage::Recipient));
    assert!(matches!(&statuses[2], RecipientStatus::Delivered(_)));
    assert_eq!(actions[1], ClientAction::Write(Bytes::from_static(b"QUIT\r\n")));
    assert_eq!(dialogue.hear("221 bye\r\n"), [ClientAction::Close]);
    assert_eq!(dialogue.hear("221 bye\r\n"), []);
}

#[test]
fn without_pipelining_one_command_at_a_time_and_helo_where_ehlo_is_unknown() {
    let mut dialogue = Dialogue::new(settings(ClientTls::IfOffered), message(&["a@x", "b@x"]));
    dialogue.talk("220 mx\r\n");
    assert_eq!(dialogue.talk("500 what?\r\n"), "HELO gate.example\r\n");
    assert_eq!(dialogue.talk("250 mx\r\n"), "MAIL FROM:<s@a.example>\r\n");
    assert_eq!(dialogue.talk("250 ok\r\n"), "RCPT TO:<a@x>\r\n");
    assert_eq!(dialogue.talk("250 ok\r\n"), "RCPT TO:<b@x>\r\n");
    assert_eq!(dialogue.talk("550 no\r\n"), "DATA\r\n");
}

#[test]
fn tls_then_ehlo_again_then_auth() {
    let login = PlainLogin { name: "u".to_owned(), password: "p".to_owned() };
    let with_login = ClientSettings { login: Some(login), ..settings(ClientTls::Required) };
    let mut dialogue = Dialogue::new(with_login, message(&["a@x"]));
    dialogue.talk("220 mx\r\n");
    assert_eq!(dialogue.talk(OFFER), "STARTTLS\r\n");
    assert_eq!(dialogue.hear("220 go\r\n"), [ClientAction::StartTls]);
    dialogue.session.tls_started(dialogue.now);
    assert_eq!(dialogue.talk(""), "EHLO gate.example\r\n");
    assert_eq!(dialogue.talk("250-mx\r\n250 AUTH PLAIN\r\n"), "AUTH PLAIN AHUAcA==\r\n");
    assert_eq!(dialogue.talk("235 ok\r\n"), "MAIL FROM:<s@a.example>\r\n");
}

#[test]
fn a_long_credential_waits_for_the_challenge() {
    let login = PlainLogin { name: "u".to_owned(), password: "p".repeat(400) };
    let with_login = ClientSettings { login: Some(login), ..settings(ClientTls::Implicit) };
    let mut dialogue = Dialogue::new(with_login, message(&["a@x"]));
    dialogue.talk("220 mx\r\n");
    assert_eq!(dialogue.talk("250-mx\r\n250 AUTH PLAIN\r\n"), "AUTH PLAIN\r\n");
    assert!(dialogue.talk("334 \r\n").starts_with("AHUAcHBw"));
    let actions = dialogue.hear("535 5.7.8 no\r\n");
    assert!(!failure(&actions).is_permanent());
}

/// RFC 3207 section 6; the client half of the STARTTLS injection.
#[test]
fn bytes_behind_the_220_of_starttls_end_the_session() {
    let mut dialogue = Dialogue::new(settings(ClientTls::IfOffered), message(&["a@x"]));
    dialogue.talk("220 mx\r\n");
    dialogue.talk(OFFER);
    let actions = dialogue.hear("220 go\r\n250 injected\r\n");
    assert_eq!(failure(&actions).kind, FailureKind::Protocol(ResponseError::Unexpected));
    assert_eq!(actions.last(), Some(&ClientAction::Close));

    let mut dialogue = Dialogue::new(settings(ClientTls::IfOffered), message(&["a@x"]));
    dialogue.talk("220 mx\r\n");
    dialogue.talk(OFFER);
    assert_eq!(dialogue.hear("220 go\r\n"), [ClientAction::StartTls]);
    assert_eq!(dialogue.hear("250 injected\r\n"), []);
    dialogue.session.tls_started(dialogue.now);
    let actions = dialogue.actions();
    assert_eq!(failure(&actions).kind, FailureKind::Protocol(ResponseError::Unexpected));
}

#[test]
fn what_is_required_and_not_offered_fails_before_mail() {
    let mut dialogue = Dialogue::new(settings(ClientTls::Required), message(&["a@x"]));
    dialogue.talk("220 mx\r\n");
    let actions = dialogue.hear("250 mx\r\n");
    assert!(matches!(failure(&actions).kind, FailureKind::Tls(_)));
    assert!(!failure(&actions).is_permanent());

    let eight_bit = OutgoingMessage { eight_bit: true, ..message(&["a@x"]) };
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), eight_bit);
    dialogue.talk("220 mx\r\n");
    let actions = dialogue.hear("250 mx\r\n");
    assert_eq!(failure(&actions).kind, FailureKind::EightBitNotOffered);
    assert!(failure(&actions).is_permanent());

    let big = OutgoingMessage { size: Some(1001), ..message(&["a@x"]) };
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), big);
    dialogue.talk("220 mx\r\n");
    let actions = dialogue.hear(OFFER);
    assert_eq!(failure(&actions).kind, FailureKind::TooLarge { limit: 1000 });
}

/// RFC 3461 section 5.2, RFC 6531, RFC 8689: what was asked of us is asked of the next hop.
#[test]
fn options_go_on_where_they_are_offered() {
    let mut asked = message(&["b@x"]);
    asked.recipients[0].options = RcptOptions {
        notify: Some(Notify::NEVER),
        orcpt: OriginalRecipient::parse("rfc822;a+2Bb@x"),
    };
    asked.options.ret = Some(Returned::Full);
    asked.options.envid = Some("a=b".to_owned());
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), asked.clone());
    dialogue.talk("220 mx\r\n");
    let said = dialogue.talk("250-mx\r\n250 DSN\r\n");
    assert_eq!(said, "MAIL FROM:<s@a.example> RET=FULL ENVID=a+3Db\r\n");
    let said = dialogue.talk("250 ok\r\n");
    assert_eq!(said, "RCPT TO:<b@x> NOTIFY=NEVER ORCPT=rfc822;a+2Bb@x\r\n");
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), asked);
    dialogue.talk("220 mx\r\n");
    assert_eq!(dialogue.talk("250 mx\r\n"), "MAIL FROM:<s@a.example>\r\n");
    assert_eq!(dialogue.talk("250 ok\r\n"), "RCPT TO:<b@x>\r\n");
}

#[test]
fn utf8_goes_only_where_it_is_taken() {
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["ü@x", "b@x"]));
    dialogue.talk("220 mx\r\n");
    let said = dialogue.talk("250-mx\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n");
    assert_eq!(said, "MAIL FROM:<s@a.example> SMTPUTF8\r\nRCPT TO:<ü@x>\r\nRCPT TO:<b@x>\r\n");
    // The recipient that needs no UTF-8 gets the message all the same.
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["ü@x", "b@x"]));
    dialogue.talk("220 mx\r\n");
    let said = dialogue.talk("250-mx\r\n250 PIPELINING\r\n");
    assert_eq!(said, "MAIL FROM:<s@a.example>\r\nRCPT TO:<b@x>\r\n");
    let mut in_header = message(&["b@x"]);
    in_header.options.utf8 = true;
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), in_header);
    dialogue.talk("220 mx\r\n");
    let actions = dialogue.hear("250 mx\r\n");
    assert_eq!(failure(&actions).kind, FailureKind::Utf8NotOffered);
    assert!(failure(&actions).is_permanent());
}

/// RFC 2033: LHLO, and a reply for each recipient at the end; who has none when it breaks off waits.
#[test]
fn lmtp_settles_each_recipient_by_itself() {
    for (last, kind) in [("450 4.2.2 full\r\n", None), ("", Some(FailureKind::Closed))] {
        let lmtp = ClientSettings { lmtp: true, ..settings(ClientTls::Off) };
        let mut dialogue = Dialogue::new(lmtp, message(&["a@x", "no@x", "b@x"]));
        assert_eq!(dialogue.talk("220 mx LMTP\r\n"), "LHLO gate.example\r\n");
        dialogue.talk("250-mx\r\n250 PIPELINING\r\n");
        let said = dialogue.talk("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n250 ok\r\n");
        assert_eq!(said, "DATA\r\n");
        assert_eq!(dialogue.hear("354 go\r\n"), [ClientAction::SendBody]);
        dialogue.session.content_sent(dialogue.now);
        assert_eq!(dialogue.hear("250 2.1.5 done\r\n"), []);
        let mut actions = dialogue.hear(last);
        if last.is_empty() {
            dialogue.session.peer_closed();
            actions = dialogue.actions();
        }
        let settled = &outcome(&actions).recipients;
        assert!(matches!(settled[0], RecipientStatus::Delivered(_)), "{settled:?}");
        let RecipientStatus::Failed(refused) = &settled[1] else { panic!("{settled:?}") };
        assert!(refused.is_permanent());
        let RecipientStatus::Failed(later) = &settled[2] else { panic!("{settled:?}") };
        assert!(!later.is_permanent() && kind.is_none_or(|kind| later.kind == kind));
    }
}

#[test]
fn require_tls_and_binary_need_their_offers() {
    let mut required = message(&["b@x"]);
    required.options.require_tls = true;
    let mut dialogue = Dialogue::new(settings(ClientTls::IfOffered), required);
    dialogue.talk("220 mx\r\n");
    let actions = dialogue.hear("250-mx\r\n250 REQUIRETLS\r\n");
    assert_eq!(failure(&actions).kind, FailureKind::RequireTlsNotOffered);
    let binary = OutgoingMessage { binary: true, ..message(&["b@x"]) };
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), binary.clone());
    dialogue.talk("220 mx\r\n");
    let actions = dialogue.hear("250-mx\r\n250 CHUNKING\r\n");
    assert_eq!(failure(&actions).kind, FailureKind::BinaryNotOffered);
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), binary);
    dialogue.talk("220 mx\r\n");
    let said = dialogue.talk("250-mx\r\n250-CHUNKING\r\n250 BINARYMIME\r\n");
    assert_eq!(said, "MAIL FROM:<s@a.example> BODY=BINARYMIME\r\n");
    dialogue.talk("250 ok\r\n");
    let actions = dialogue.hear("250 ok\r\n");
    let bdat = ClientAction::Write("BDAT 99 LAST\r\n".into());
    assert_eq!(actions, [bdat, ClientAction::SendExactly]);
}

#[test]
fn an_address_that_could_inject_is_never_sent() {
    let recipients = ["a@x>\r\nDATA\r\n", "b@x", "c@x> NOTIFY=NEVER"];
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&recipients));
    dialogue.talk("220 mx\r\n");
    assert!(dialogue.talk(OFFER).ends_with("SIZE=99\r\nRCPT TO:<b@x>\r\n"));
    let actions = dialogue.hear("250 ok\r\n550 no\r\n");
    let bad = |status: &RecipientStatus| matches!(status, RecipientStatus::Failed(failure) if failure.kind == FailureKind::BadAddress);
    let statuses = &outcome(&actions).recipients;
    assert_eq!(statuses.iter().map(bad).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_message_without_a_sendable_recipient_is_not_begun() {
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["no address", "a@x\n"]));
    dialogue.talk("220 mx\r\n");
    let actions = dialogue.hear(OFFER);
    assert_eq!(failure(&actions).kind, FailureKind::BadAddress);
    assert_eq!(actions[1..], [ClientAction::Write(Bytes::from_static(b"QUIT\r\n"))]);
}

#[test]
fn mail_refused_is_the_reason_for_every_recipient() {
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["a@x", "b@x"]));
    dialogue.talk("220 mx\r\n");
    dialogue.talk(OFFER);
    let actions = dialogue.hear("550 5.1.8 bad sender\r\n503 no\r\n503 no\r\n");
    assert_eq!(failure(&actions).stage, Stage::Mail);
    assert!(failure(&actions).is_permanent());
}

#[test]
fn a_second_message_goes_over_the_same_connection() {
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["a@x"]));
    dialogue.talk("220 mx\r\n");
    dialogue.talk(OFFER);
    dialogue.session.push(b"250 ok\r\n550 no\r\n", dialogue.now);
    assert!(matches!(dialogue.session.next_action(), Some(ClientAction::Done(_))));
    let now = dialogue.now;
    dialogue.session.next_message(message(&["b@x"]), now).unwrap();
    assert_eq!(dialogue.talk(""), "RSET\r\n");
    assert!(dialogue.talk("250 ok\r\n").ends_with("RCPT TO:<b@x>\r\n"));
    assert_eq!(dialogue.session.next_message(message(&["c@x"]), now), Err(message(&["c@x"])));
    assert_eq!(dialogue.talk("250 ok\r\n250 ok\r\n"), "DATA\r\n");
}

#[test]
fn a_connection_that_never_opened_takes_no_second_message() {
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["a@x"]));
    dialogue.session.push(b"554 no\r\n", dialogue.now);
    let done = dialogue.session.next_action();
    assert!(matches!(&done, Some(ClientAction::Done(outcome))
        if matches!(&outcome.recipients[0], RecipientStatus::Failed(failure)
            if failure.stage == Stage::Greeting && !failure.is_permanent())));
    let second = message(&["b@x"]);
    assert_eq!(dialogue.session.next_message(second.clone(), dialogue.now), Err(second));
    assert_eq!(dialogue.talk(""), "QUIT\r\n");
}

/// RFC 5321 section 4.5.3.1.10.
#[test]
fn too_many_recipients_is_a_failure_for_now() {
    for (reply, permanent) in
        [("552 too many", false), ("552 5.5.3 too many", false), ("552 5.2.2 full", true)]
    {
        let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["a@x"]));
        dialogue.talk("220 mx\r\n");
        dialogue.talk(OFFER);
        let actions = dialogue.hear(&format!("250 ok\r\n{reply}\r\n"));
        assert_eq!(failure(&actions).is_permanent(), permanent, "{reply}");
    }
}

#[test]
fn the_end_of_the_connection_settles_the_message_for_now() {
    for stage in 0..5 {
        let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["a@x"]));
        let replies = ["220 mx\r\n", OFFER, "250 ok\r\n250 ok\r\n", "354 go\r\n"];
        replies[..stage].iter().for_each(|reply| drop(dialogue.hear(reply)));
        match stage {
            0 => dialogue.session.timed_out(),
            4 => dialogue.session.content_failed(),
            _ => dialogue.session.peer_closed(),
        }
        let actions = dialogue.actions();
        assert!(!failure(&actions).is_permanent());
        assert_eq!(actions.last(), Some(&ClientAction::Close));
    }
}

#[test]
fn deadlines_follow_the_stage() {
    let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["a@x"]));
    let minutes = |minutes: u64| dialogue.now + Duration::from_secs(60 * minutes);
    let (five, ten) = (minutes(5), minutes(10));
    assert_eq!(dialogue.session.deadline(), five);
    dialogue.now += Duration::from_secs(60);
    dialogue.talk("220 mx\r\n");
    assert_eq!(dialogue.session.deadline(), five + Duration::from_secs(60));
    dialogue.talk(OFFER);
    dialogue.hear("250 ok\r\n250 ok\r\n");
    dialogue.hear("354 go\r\n");
    dialogue.session.content_sent(dialogue.now);
    assert_eq!(dialogue.session.deadline(), ten + Duration::from_secs(60));
}

#[test]
fn an_unasked_or_wrong_reply_is_a_protocol_error() {
    for (reply, steps) in [("250 x\r\n", 0), ("354 x\r\n", 2), ("220 x\r\n", 3)] {
        let mut dialogue = Dialogue::new(settings(ClientTls::Off), message(&["a@x"]));
        let replies = ["220 mx\r\n", OFFER, "250 ok\r\n250 ok\r\n"];
        replies[..steps].iter().for_each(|reply| drop(dialogue.hear(reply)));
        let actions = dialogue.hear(reply);
        assert_eq!(failure(&actions).kind, FailureKind::Protocol(ResponseError::Unexpected));
    }
}
