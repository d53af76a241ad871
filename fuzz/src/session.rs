//! The whole receiving session under a script of bytes, times and answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use relay_core::smtp::{
    Answer, AuthMode, AuthRefusal, Effect, Envelope, Reply, Session, SessionEvent, SessionSettings,
    TlsInfo, TlsMode, Verdict,
    client::ResponseReader,
    command::BodyType,
    framing::BareNewlines,
    session::{HeaderEnd, Upstream},
};

use super::{has_crlf_alone, pieces};

const RECIPIENTS_MAX: usize = 3;

/// First and second octet: settings. Third: how what is pushed is cut. The rest: steps, each an
/// octet that says what ([`Step`]), one that says how much, and for [`Step::Push`] so many octets.
pub fn check(data: &[u8]) {
    let [low, high, seed, script @ ..] = data else { return };
    let settings = Arc::new(settings(u16::from_le_bytes([*low, *high])));
    let steps = steps(script);
    let whole = Run::new(&settings, *high).all(&steps, None);
    let cut = Run::new(&settings, *high).all(&steps, Some(*seed));
    // Whoever does not wait where it must is found out by what one read brings.
    let timing = |event: &SessionEvent| {
        matches!(
            event,
            SessionEvent::UnauthorisedPipelining
                | SessionEvent::PlaintextBehindStartTls
                | SessionEvent::Pregreet(_)
                | SessionEvent::TooManyOctets
        )
    };
    let behind_xclient = |told: &String| told.contains("Nothing may follow XCLIENT");
    let mut events = whole.events.iter().chain(&cut.events);
    if !events.any(timing) && !whole.story.iter().chain(&cut.story).any(behind_xclient) {
        let pairs = whole.story.iter().zip(&cut.story);
        let same = pairs.take_while(|(one, other)| one == other).count();
        let (one, other) = (whole.story.get(same), cut.story.get(same));
        assert_eq!(one, other, "the cut matters, behind {:#?}", &whole.story[..same]);
    }
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Push(&'a [u8]),
    Wait(Duration),
    /// How questions are answered from here on.
    Mood(u8),
    PeerClosed,
    ShutDown,
}

fn steps(mut script: &[u8]) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    while let [what, amount, rest @ ..] = script {
        let length = if what % 8 < 4 { usize::from(*amount).min(rest.len()) } else { 0 };
        let (bytes, rest) = rest.split_at(length);
        script = rest;
        steps.push(match what % 8 {
            0..=3 => Step::Push(bytes),
            4 => Step::Wait(Duration::from_secs(u64::from(*amount))),
            5 => Step::Mood(*amount),
            6 => Step::PeerClosed,
            _ => Step::ShutDown,
        });
    }
    steps
}

/// Limits that a short script reaches.
fn settings(bits: u16) -> SessionSettings {
    let has = |bit: u16| bits & (1 << bit) != 0;
    let mode = |bit: u16| bits >> bit & 3;
    SessionSettings {
        hostname: "mx.example".to_owned(),
        tls: [TlsMode::Offer, TlsMode::Off, TlsMode::Require, TlsMode::Offer][usize::from(mode(0))],
        auth: [AuthMode::Off, AuthMode::Offer, AuthMode::Require, AuthMode::Offer]
            [usize::from(mode(2))],
        lmtp: has(4),
        submission: has(5),
        bare_newlines: if has(6) { BareNewlines::Normalize } else { BareNewlines::Reject },
        binary_mime: has(7),
        require_tls: has(8),
        enforce_sync: !has(9),
        message_size_max: if has(10) { 100 } else { 4000 },
        recipients_max: RECIPIENTS_MAX,
        messages_max: 4,
        errors_max: 6,
        refusals_max: 5,
        auth_failures_max: 2,
        idle_commands_max: 6,
        command_line_max: 200,
        text_line_max: 80,
        header_bytes_max: 300,
        header_lines_max: 8,
        received_max: 2,
        mime_depth_max: 2,
        session_bytes_max: 20_000,
        ..SessionSettings::default()
    }
}

/// A session and its driver, which checks what it is asked.
struct Run {
    session: Session,
    settings: Arc<SessionSettings>,
    upstream: Upstream,
    now: Instant,
    mood: u8,
    envelope: Option<Envelope>,
    accepted: Vec<String>,
    content: Vec<u8>,
    /// Behind so many octets of content, with what there is to say.
    header_end: Option<(usize, HeaderEnd)>,
    closed: bool,
    events: Vec<SessionEvent>,
    /// Effects in their order, pieces of content joined.
    story: Vec<String>,
}

#[expect(clippy::disallowed_methods, reason = "there is no other way to an Instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn tls() -> TlsInfo {
    TlsInfo { version: "TLSv1.3".to_owned(), cipher: "TLS_AES_256_GCM_SHA384".to_owned() }
}

impl Run {
    /// Bits of `how`: 3 and 4 what the client may say of others, 7 whether TLS comes first.
    fn new(settings: &Arc<SessionSettings>, how: u8) -> Self {
        let now = start();
        let tls_already = how & 0x80 != 0;
        let mut session = Session::new(Arc::clone(settings), tls_already.then(tls), now);
        let upstream = Upstream { xclient: how & 8 != 0, xforward: how & 16 != 0 };
        session.permit(upstream);
        session.greet(now);
        Self {
            session,
            settings: Arc::clone(settings),
            upstream,
            now,
            mood: 0,
            envelope: None,
            accepted: Vec::new(),
            content: Vec::new(),
            header_end: None,
            closed: false,
            events: Vec::new(),
            story: Vec::new(),
        }
    }

    fn all(mut self, steps: &[Step<'_>], cut: Option<u8>) -> Self {
        self.drain();
        for step in steps {
            match *step {
                Step::Push(bytes) => match cut {
                    None => self.push(bytes),
                    Some(seed) => pieces(bytes, seed).into_iter().for_each(|one| self.push(one)),
                },
                Step::Wait(time) => {
                    self.now += time;
                    if self.now >= self.session.deadline() {
                        self.session.timed_out(self.now);
                    }
                }
                Step::Mood(mood) => self.mood = mood,
                Step::PeerClosed => self.session.peer_closed(),
                Step::ShutDown => self.session.shut_down(),
            }
            self.drain();
        }
        self.session.peer_closed();
        self.drain();
        assert!(self.closed && self.session.is_closed());
        assert!(self.envelope.is_none(), "a message is open behind the end");
        self
    }

    fn push(&mut self, bytes: &[u8]) {
        // As the driver does: nothing is read while an answer is due, or behind the end.
        if self.session.wants_bytes() {
            self.session.push(bytes, self.now);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.session.next_effect(self.now) {
            assert!(!self.closed, "behind the close: {effect:?}");
            self.note(&effect);
            if let Some(answer) = self.perform(effect) {
                self.session.answer(answer, self.now);
            }
        }
        assert!(self.session.wants_bytes() || self.session.is_closed(), "nobody's turn");
        assert_eq!(self.session.is_closed(), self.closed);
    }

    fn note(&mut self, effect: &Effect) {
        let told = match effect {
            // What had come before a message was dropped depends on the reads, and is nobody's.
            Effect::Body(_) | Effect::HeaderEnd(_) => return,
            Effect::EndMessage => {
                format!("EndMessage {} {:?}", self.content.escape_ascii(), self.header_end)
            }
            effect => format!("{effect:?}"),
        };
        self.story.push(told);
    }

    fn perform(&mut self, effect: Effect) -> Option<Answer> {
        match effect {
            Effect::Reply(reply) => check_reply(&reply),
            Effect::CheckMail(_) => return Some(self.on_mail()),
            Effect::CheckRecipient(rcpt) => {
                assert!(self.accepted.len() < RECIPIENTS_MAX, "more recipients than permitted");
                let verdict = self.verdict();
                if verdict == Verdict::Accept {
                    self.accepted.push(rcpt.forward_path.to_string());
                }
                return Some(Answer::Recipient(verdict));
            }
            Effect::Authenticate(plain) => {
                assert!(self.session.tls().is_some(), "a password without TLS");
                let good = self.mood & 4 == 0;
                let result = if good { Ok(plain.authcid) } else { Err(AuthRefusal::Invalid) };
                return Some(Answer::Authenticated(result));
            }
            Effect::StartTls => {
                assert!(self.session.tls().is_none(), "TLS inside TLS");
                return Some(Answer::TlsStarted(tls()));
            }
            Effect::NameClient(_) => {
                assert!(self.upstream.xclient && self.envelope.is_none(), "named by whom?");
                let refused = Reply::new(421, (4, 7, 0), "Not now");
                let result = if self.mood & 32 == 0 { Ok(self.upstream) } else { Err(refused) };
                return Some(Answer::ClientNamed(result));
            }
            Effect::BeginMessage(envelope) => return Some(self.on_begin(envelope)),
            Effect::Body(bytes) => {
                assert!(self.envelope.is_some() && !bytes.is_empty());
                self.content.extend_from_slice(&bytes);
            }
            Effect::HeaderEnd(end) => {
                assert!(self.envelope.is_some());
                assert_ne!(end, HeaderEnd::default(), "nothing to say");
                assert!(!end.lacks_empty_line || self.content.is_empty(), "it goes first");
                assert!(self.header_end.is_none(), "a header ends once");
                self.header_end = Some((self.content.len(), end));
            }
            Effect::Utf8Fields => {
                let utf8 = self.envelope.as_ref().is_some_and(|envelope| envelope.options.utf8);
                assert!(utf8 && !self.content.is_ascii(), "all is ASCII, or was to be");
            }
            Effect::EndMessage => return Some(self.on_end()),
            Effect::AbortMessage(_) => {
                assert!(self.envelope.take().is_some(), "no message is open");
                self.content.clear();
            }
            Effect::Event(event) => {
                assert_ne!(event, SessionEvent::AnswerMismatch);
                self.events.push(event);
            }
            Effect::Close => self.closed = true,
        }
        None
    }

    fn on_mail(&mut self) -> Answer {
        assert!(self.envelope.is_none(), "MAIL in the middle of a message");
        let SessionSettings { tls, auth, .. } = &*self.settings;
        assert!(*tls != TlsMode::Require || self.session.tls().is_some(), "MAIL without TLS");
        assert!(
            *auth != AuthMode::Require || self.session.account().is_some(),
            "MAIL without AUTH"
        );
        assert!(self.session.helo().is_some(), "MAIL without EHLO");
        self.accepted.clear();
        Answer::Mail(self.verdict())
    }

    fn on_begin(&mut self, envelope: Envelope) -> Answer {
        assert!(self.envelope.is_none(), "a message inside a message");
        let recipients: Vec<String> = envelope.recipients.iter().map(ToString::to_string).collect();
        assert_eq!(recipients, self.accepted, "others than those that were accepted");
        assert!(!recipients.is_empty(), "nobody to deliver to");
        let binary = envelope.body == BodyType::BinaryMime;
        assert!(!binary || self.settings.binary_mime, "BINARYMIME was not offered");
        self.accepted.clear();
        self.content.clear();
        self.header_end = None;
        if self.mood & 8 != 0 {
            return Answer::MessageOpened(Err(Reply::new(452, (4, 3, 1), "Full")));
        }
        self.envelope = Some(envelope);
        Answer::MessageOpened(Ok(()))
    }

    fn on_end(&mut self) -> Answer {
        let envelope = self.envelope.take().expect("a message is open");
        let content = std::mem::take(&mut self.content);
        let is_text = envelope.body != BodyType::BinaryMime;
        assert!(!is_text || has_crlf_alone(&content), "{}", content.escape_ascii());
        assert!(content.len() as u64 <= self.settings.message_size_max, "{}", content.len());
        if self.mood & 16 != 0 {
            return Answer::Stored(Err(Reply::new(451, (4, 3, 0), "Later")));
        }
        Answer::Stored(Ok("Q1".to_owned()))
    }

    fn verdict(&self) -> Verdict {
        match self.mood & 3 {
            0 => Verdict::Accept,
            1 => Verdict::Refuse(Reply::new(550, (5, 1, 1), "No")),
            2 => Verdict::Refuse(Reply::new(450, (4, 2, 1), "Not now")),
            _ => Verdict::RefuseAndClose(Reply::new(554, (5, 7, 1), "Never")),
        }
    }
}

/// Whatever the client said, a reply is one reply, of short lines of printable ASCII.
fn check_reply(reply: &Reply) {
    let mut wire = Vec::new();
    reply.encode(&mut wire);
    assert!(has_crlf_alone(&wire) && wire.ends_with(b"\r\n"), "{}", wire.escape_ascii());
    assert!(wire.split(|&byte| byte == b'\n').all(|line| line.len() < 512));
    let mut reader = ResponseReader::default();
    reader.push(&wire);
    let response = reader.next_response().expect("a reply").expect("all of it");
    assert!(reader.is_empty(), "more than one reply: {}", wire.escape_ascii());
    assert_eq!(response.code, reply.code());
    assert_eq!(response.lines.len(), reply.lines().count());
}
