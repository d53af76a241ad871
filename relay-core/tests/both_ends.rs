//! The sending half against the receiving half: what goes in at one end comes out at the other.

use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;
use relay_core::smtp::client::{
    ClientAction, ClientJob, ClientSession, ClientSettings, ClientTls, DotStuffer, Outcome,
    OutgoingMessage, PlainLogin, RecipientStatus,
};
use relay_core::smtp::{
    Answer, AuthMode, Effect, Envelope, Reply, Session, SessionSettings, TlsInfo, TlsMode, Verdict,
};

#[expect(clippy::disallowed_methods, reason = "there is no other way to an Instant to count from")]
fn start() -> Instant {
    Instant::now()
}

/// A client and a server in one place, their bytes carried over in chunks.
struct Pair {
    client: ClientSession,
    server: Session,
    now: Instant,
    chunk: usize,
    content: Vec<u8>,
    envelope: Option<Envelope>,
    received: Vec<u8>,
    outcome: Option<Outcome>,
}

impl Pair {
    fn new(message: OutgoingMessage, content: Vec<u8>, chunk: usize) -> Self {
        let now = start();
        let login = PlainLogin { name: "ann".to_owned(), password: "secret".to_owned() };
        let client = ClientSettings {
            helo: "client.example".to_owned(),
            tls: ClientTls::Required,
            login: Some(login),
            ..ClientSettings::default()
        };
        let server = SessionSettings {
            hostname: "mx.example".to_owned(),
            tls: TlsMode::Require,
            auth: AuthMode::Require,
            refusals_max: 1000,
            binary_mime: true,
            ..SessionSettings::default()
        };
        let job = ClientJob { settings: Arc::new(client), message };
        let mut server = Session::new(Arc::new(server), None, now);
        server.greet(now);
        Self {
            client: ClientSession::new(job, now),
            server,
            now,
            chunk,
            content,
            envelope: None,
            received: Vec::new(),
            outcome: None,
        }
    }

    /// Lets both talk until the client closes.
    fn run(mut self) -> Self {
        for _ in 0..1000 {
            let heard = self.serve();
            for part in heard.chunks(self.chunk) {
                self.client.push(part, self.now);
            }
            let mut said = Vec::new();
            while let Some(action) = self.client.next_action() {
                match action {
                    ClientAction::Write(bytes) => said.extend_from_slice(&bytes),
                    ClientAction::StartTls => {
                        let (version, cipher) = ("TLSv1.3".to_owned(), "X".to_owned());
                        let info = TlsInfo { version, cipher };
                        self.server.answer(Answer::TlsStarted(info), self.now);
                        self.client.tls_started(self.now);
                    }
                    ClientAction::SendExactly => {
                        said.extend_from_slice(&self.content);
                        self.client.content_sent(self.now);
                    }
                    ClientAction::SendBody => {
                        let mut stuffer = DotStuffer::new();
                        for part in self.content.chunks(self.chunk) {
                            stuffer.encode(part, &mut said);
                        }
                        stuffer.finish(&mut said);
                        self.client.content_sent(self.now);
                    }
                    ClientAction::Done(outcome) => self.outcome = Some(outcome),
                    ClientAction::Close => return self,
                }
            }
            for part in said.chunks(self.chunk) {
                self.server.push(part, self.now);
            }
        }
        panic!("the dialogue does not end");
    }

    /// Takes all effects of the server; returns its replies.
    fn serve(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while let Some(effect) = self.server.next_effect(self.now) {
            let answer = match effect {
                Effect::Reply(reply) => {
                    reply.encode(&mut wire);
                    continue;
                }
                Effect::CheckMail(_) => Answer::Mail(Verdict::Accept),
                Effect::CheckRecipient(rcpt) => {
                    let refused = rcpt.forward_path.to_string().starts_with("no");
                    let reply = Reply::new(550, (5, 1, 1), "No such user");
                    let verdict = if refused { Verdict::Refuse(reply) } else { Verdict::Accept };
                    Answer::Recipient(verdict)
                }
                Effect::Authenticate(plain) => {
                    assert_eq!(
                        (plain.authcid.as_str(), plain.password.as_str()),
                        ("ann", "secret")
                    );
                    Answer::Authenticated(Ok(plain.authcid))
                }
                Effect::BeginMessage(envelope) => {
                    self.envelope = Some(envelope);
                    Answer::MessageOpened(Ok(()))
                }
                Effect::Body(bytes) => {
                    self.received.extend_from_slice(&bytes);
                    continue;
                }
                Effect::EndMessage => Answer::Stored(Ok("Q1".to_owned())),
                Effect::HeaderEnd(_)
                | Effect::Utf8Fields
                | Effect::StartTls
                | Effect::Event(_)
                | Effect::Close => continue,
                Effect::NameClient(_) => panic!("not permitted"),
                Effect::AbortMessage(reason) => panic!("{reason:?}"),
            };
            self.server.answer(answer, self.now);
        }
        wire
    }
}

/// A message of whole lines, with dots where they hurt.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec("\\.{0,3}[ -~\u{e4}]{0,20}", 0..30)
        .prop_map(|lines| lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_message_arrives_as_it_was_sent(
        content in content(),
        known in prop::collection::vec(any::<bool>(), 1..100),
        chunk in 1_usize..2000,
        (binary, octets) in any::<(bool, Vec<u8>)>(),
    ) {
        let content = if binary { octets } else { content };
        let address = |(index, &known): (usize, &bool)| {
            format!("{}{index}@two.example", if known { "yes" } else { "no" })
        };
        let recipients: Vec<String> = known.iter().enumerate().map(address).collect();
        let message = OutgoingMessage {
            reverse_path: "\"a b\"@one.example".to_owned(),
            recipients: recipients.iter().map(|address| address.as_str().into()).collect(),
            size: Some(content.len() as u64),
            eight_bit: true,
            binary,
            ..OutgoingMessage::default()
        };
        let pair = Pair::new(message, content.clone(), chunk).run();
        let outcome = pair.outcome.expect("an outcome");
        let delivered = |status: &RecipientStatus| matches!(status, RecipientStatus::Delivered(_));
        let got: Vec<bool> = outcome.recipients.iter().map(delivered).collect();
        prop_assert_eq!(&got, &known);
        prop_assert!(outcome.tls && outcome.capabilities.pipelining);
        if let Some(envelope) = pair.envelope {
            let accepted: Vec<String> =
                envelope.recipients.iter().map(ToString::to_string).collect();
            let expected: Vec<String> =
                recipients.into_iter().filter(|name| name.starts_with("yes")).collect();
            prop_assert_eq!(accepted, expected);
            prop_assert_eq!(envelope.reverse_path.to_string(), "\"a b\"@one.example");
            prop_assert_eq!(envelope.protocol(), "ESMTPSA");
            prop_assert_eq!(pair.received, content);
        } else {
            prop_assert!(!known.contains(&true));
        }
    }
}
