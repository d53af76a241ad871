//! Every dialogue under `tests/dialogues`, against the pure session.

#[path = "../../tests/dialogues/script.rs"]
mod script;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_core::smtp::framing::BareNewlines;
use relay_core::smtp::{
    Answer, AuthMode, AuthRefusal, Effect, Envelope, MailOptions, RcptOptions, Reply, Session,
    SessionSettings, TlsInfo, TlsMode, Verdict,
};
use script::{Script, Step};

/// A driver that answers from the script's rules.
struct Runner {
    script: Script,
    session: Session,
    now: Instant,
    /// Octets of one push.
    chunk: usize,
    replies: VecDeque<String>,
    events: Vec<String>,
    open: Option<Vec<u8>>,
    stored: VecDeque<Vec<u8>>,
    closed: bool,
}

#[expect(clippy::disallowed_methods, reason = "there is no other way to an Instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn tls() -> TlsInfo {
    TlsInfo { version: "TLSv1.3".to_owned(), cipher: "TLS_AES_256_GCM_SHA384".to_owned() }
}

fn number<T: std::str::FromStr>(value: &str) -> T {
    value.parse().unwrap_or_else(|_| panic!("not a number: {value}"))
}

fn settings(script: &Script) -> SessionSettings {
    let mut settings = SessionSettings { hostname: "mx.example".to_owned(), ..Default::default() };
    for (key, value) in &script.directives {
        let seconds = || Duration::from_secs(number(value));
        match key.as_str() {
            "tls" => {
                settings.tls = match value.as_str() {
                    "off" => TlsMode::Off,
                    "require" => TlsMode::Require,
                    _ => TlsMode::Offer,
                }
            }
            "auth" => {
                settings.auth = match value.as_str() {
                    "off" => AuthMode::Off,
                    "require" => AuthMode::Require,
                    _ => AuthMode::Offer,
                }
            }
            "message_size_max" => settings.message_size_max = number(value),
            "recipients_max" => settings.recipients_max = number(value),
            "messages_max" => settings.messages_max = number(value),
            "errors_max" => settings.errors_max = number(value),
            "refusals_max" => settings.refusals_max = number(value),
            "auth_failures_max" => settings.auth_failures_max = number(value),
            "idle_commands_max" => settings.idle_commands_max = number(value),
            "command_line_max" => settings.command_line_max = number(value),
            "text_line_max" => settings.text_line_max = number(value),
            "header_bytes_max" => settings.header_bytes_max = number(value),
            "header_lines_max" => settings.header_lines_max = number(value),
            "received_max" => settings.received_max = number(value),
            "mime_depth_max" => settings.mime_depth_max = number(value),
            "session_bytes_max" => settings.session_bytes_max = number(value),
            "lmtp" => settings.lmtp = true,
            "submission" => settings.submission = true,
            "binary_mime" => settings.binary_mime = true,
            "require_tls" => settings.require_tls = true,
            "enforce_sync" => settings.enforce_sync = value != "off",
            "bare_newlines" => {
                settings.bare_newlines = match value.as_str() {
                    "normalize" => BareNewlines::Normalize,
                    _ => BareNewlines::Reject,
                }
            }
            "data_rate_min" => settings.data_rate_min = number(value),
            "command_timeout" => settings.command_timeout = seconds(),
            "data_timeout" => settings.data_timeout = seconds(),
            "session_timeout" => settings.session_timeout = seconds(),
            "sender" | "recipient" | "account" | "open" | "store" | "implicit-tls" | "silent"
            | "whole" => {}
            other => panic!("unknown directive @{other}"),
        }
    }
    settings
}

/// `550 5.1.1 No such user`
fn reply(text: &str) -> Reply {
    let mut parts = text.splitn(3, ' ');
    let code = number(parts.next().unwrap_or_default());
    let enhanced: Vec<u16> = parts.next().unwrap_or_default().split('.').map(number).collect();
    let text = parts.next().unwrap_or_default().to_owned();
    Reply::new(code, (enhanced[0] as u8, enhanced[1], enhanced[2]), text)
}

/// What an envelope carries beside its addresses.
fn shown(envelope: &Envelope) -> String {
    let Envelope { reverse_path, body, options, .. } = envelope;
    let MailOptions { utf8, require_tls, ret, envid } = options;
    let mut text = format!("{} from <{reverse_path}> {body:?}", envelope.protocol());
    for (is_set, name) in [(*utf8, "SMTPUTF8"), (*require_tls, "REQUIRETLS")] {
        text.push_str(&if is_set { format!(" {name}") } else { String::new() });
    }
    text.push_str(&ret.map(|ret| format!(" RET={ret}")).unwrap_or_default());
    text.push_str(&envid.as_ref().map(|envid| format!(" ENVID={envid}")).unwrap_or_default());
    text
}

impl Runner {
    fn new(script: Script, chunk: usize) -> Self {
        let now = start();
        let tls_already = script.directive("implicit-tls").next().map(|_| tls());
        let silent = script.directive("silent").next().is_some();
        let mut session = Session::new(Arc::new(settings(&script)), tls_already, now);
        if !silent {
            session.greet(now);
        }
        let mut runner = Self {
            script,
            session,
            now,
            chunk,
            replies: VecDeque::new(),
            events: Vec::new(),
            open: None,
            stored: VecDeque::new(),
            closed: false,
        };
        runner.drain();
        runner
    }

    fn verdict(&self, rule: &str, address: &str) -> Verdict {
        let refused = self.script.directive(rule).find_map(|rule| {
            rule.split_once(' ').filter(|(refused, _)| *refused == address).map(|(_, text)| text)
        });
        match refused.map(|text| (text, text.strip_prefix('!'))) {
            None => Verdict::Accept,
            Some((_, Some(text))) => Verdict::RefuseAndClose(reply(text)),
            Some((text, None)) => Verdict::Refuse(reply(text)),
        }
    }

    fn outcome<T>(&self, rule: &str, good: T) -> Result<T, Reply> {
        self.script.directive(rule).next().map_or(Ok(good), |text| Err(reply(text)))
    }

    fn drain(&mut self) {
        while let Some(effect) = self.session.next_effect(self.now) {
            assert!(!self.closed, "after the close: {effect:?}");
            let starts_tls = effect == Effect::StartTls;
            match self.perform(effect) {
                Some(answer) => self.session.answer(answer, self.now),
                // Answered by the script's next step.
                None if starts_tls => return,
                None => {}
            }
        }
    }

    /// Does what the session asks for; returns the answer where one is due.
    fn perform(&mut self, effect: Effect) -> Option<Answer> {
        match effect {
            Effect::Reply(reply) => {
                let text = reply.to_string();
                self.replies.extend(text.split_terminator("\r\n").map(str::to_owned));
            }
            Effect::CheckMail(mail) => {
                return Some(Answer::Mail(self.verdict("sender", &mail.reverse_path.to_string())));
            }
            Effect::CheckRecipient(rcpt) => {
                if rcpt.options != RcptOptions::default() {
                    self.events.push(format!("Recipient {:?}", rcpt.options));
                }
                let verdict = self.verdict("recipient", &rcpt.forward_path.to_string());
                return Some(Answer::Recipient(verdict));
            }
            Effect::Authenticate(plain) => {
                let known = format!("{} {}", plain.authcid, plain.password);
                let own = plain.authzid.is_empty() || plain.authzid == plain.authcid;
                let good = own && self.script.directive("account").any(|one| one == known);
                let result = if good { Ok(plain.authcid) } else { Err(AuthRefusal::Invalid) };
                return Some(Answer::Authenticated(result));
            }
            Effect::BeginMessage(envelope) => {
                assert!(self.open.is_none() && !envelope.recipients.is_empty());
                self.events.push(format!("Envelope {}", shown(&envelope)));
                let result = self.outcome("open", ());
                self.open = result.is_ok().then(Vec::new);
                return Some(Answer::MessageOpened(result));
            }
            Effect::Body(bytes) => {
                self.open.as_mut().expect("a message is open").extend_from_slice(&bytes);
            }
            Effect::HeaderEnd(end) => {
                let open = self.open.as_mut().expect("a message is open");
                if end.lacks_date {
                    open.extend_from_slice(b"Date: now\r\n");
                }
                if end.lacks_message_id {
                    open.extend_from_slice(b"Message-ID: <Q1>\r\n");
                }
            }
            Effect::EndMessage => {
                let content = self.open.take().expect("a message is open");
                let result = self.outcome("store", "Q1".to_owned());
                if result.is_ok() {
                    self.stored.push_back(content);
                }
                return Some(Answer::Stored(result));
            }
            Effect::AbortMessage(_) => {
                assert!(self.open.take().is_some(), "no message is open");
            }
            Effect::Event(event) => self.events.push(format!("{event:?}")),
            Effect::Close => self.closed = true,
            Effect::StartTls => {}
        }
        None
    }

    fn step(&mut self, step: Step) {
        let speaks = !matches!(step, Step::Expect(_) | Step::Event(_));
        if let (true, Some(reply)) = (speaks, self.replies.front()) {
            panic!("{step:?}, but a reply came that nobody expected: {reply}");
        }
        match step {
            Step::Greet => self.session.greet(self.now),
            Step::Send(bytes) => {
                for part in bytes.chunks(self.chunk) {
                    self.session.push(part, self.now);
                    self.drain();
                }
            }
            Step::Expect(expected) => {
                let reply = self.replies.pop_front().unwrap_or_else(|| "nothing".to_owned());
                let fits = match expected.strip_suffix("...") {
                    Some(start) => reply.starts_with(start),
                    None => reply == expected,
                };
                assert!(fits, "expected: {expected}\n     got: {reply}");
            }
            Step::Closed => assert!(self.closed, "the session is still open"),
            Step::Tls => self.session.answer(Answer::TlsStarted(tls()), self.now),
            Step::Eof => self.session.peer_closed(),
            Step::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                if self.now >= self.session.deadline() {
                    self.session.timed_out(self.now);
                }
            }
            Step::ShutDown => self.session.shut_down(),
            Step::Stored(content) => {
                let stored = self.stored.pop_front().expect("nothing was stored");
                assert_eq!(stored.escape_ascii().to_string(), content.escape_ascii().to_string());
            }
            Step::NothingStored => assert!(self.stored.is_empty(), "{:?}", self.stored),
            Step::Event(name) => {
                let found = self.events.iter().position(|event| event.starts_with(&name));
                let index = found.unwrap_or_else(|| panic!("no {name}, but {:?}", self.events));
                self.events.remove(index);
            }
        }
        self.drain();
    }

    fn run(mut self) {
        while let Some((number, step)) = self.script.steps.pop_front() {
            let what = format!("{step:?}");
            let step = std::panic::AssertUnwindSafe(|| self.step(step));
            if let Err(panic) = std::panic::catch_unwind(step) {
                eprintln!("    at line {number}: {}", &what[..what.len().min(200)]);
                std::panic::resume_unwind(panic);
            }
        }
        assert!(self.replies.is_empty(), "replies nobody expected: {:?}", self.replies);
        assert!(self.stored.is_empty(), "stored, but nobody looked: {:?}", self.stored);
    }
}

#[test]
fn every_dialogue_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/dialogues");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 25, "only {} dialogues in {}", paths.len(), folder.display());
    let mut failed = Vec::new();
    for path in paths {
        let whole_only = Script::read(&path).directive("whole").next().is_some();
        let chunks: &[usize] = if whole_only { &[usize::MAX] } else { &[usize::MAX, 1, 3] };
        for &chunk in chunks {
            let script = Script::read(&path);
            if std::panic::catch_unwind(|| Runner::new(script, chunk).run()).is_err() {
                failed.push(format!("{} in chunks of {chunk}", path.display()));
            }
        }
    }
    assert!(failed.is_empty(), "failed:\n{}", failed.join("\n"));
}
