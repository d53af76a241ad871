//! What the gateway was told before a dialogue began: the settings of its session, and the answers
//! to what the session asks. The pure run and the run over a socket both answer by this.

use std::collections::VecDeque;
use std::time::Duration;

use relay_core::smtp::framing::BareNewlines;
use relay_core::smtp::session::Upstream;
use relay_core::smtp::{
    Answer, AuthMode, AuthRefusal, Effect, Envelope, MailOptions, RcptOptions, Reply,
    SessionSettings, TlsMode, Verdict,
};

/// The `@` lines of a dialogue, and what came of them so far.
#[derive(Debug)]
pub(crate) struct Rules {
    directives: Vec<(String, String)>,
    /// Events in their order, each as it is printed for debugging.
    events: Vec<String>,
    open: Option<Vec<u8>>,
    stored: VecDeque<Vec<u8>>,
}

impl Rules {
    pub(crate) fn new(directives: &[(String, String)]) -> Self {
        Self {
            directives: directives.to_vec(),
            events: Vec::new(),
            open: None,
            stored: VecDeque::new(),
        }
    }

    /// The settings of the session; panics at a directive that is unknown.
    pub(crate) fn settings(&self) -> SessionSettings {
        settings(&self.directives)
    }

    /// The next message that was stored and not looked at.
    pub(crate) fn take_stored(&mut self) -> Option<Vec<u8>> {
        self.stored.pop_front()
    }

    /// Whether an event whose name begins so was reported; it is not found again.
    pub(crate) fn take_event(&mut self, name: &str) -> bool {
        let found = self.events.iter().position(|event| event.starts_with(name));
        found.map(|index| self.events.remove(index)).is_some()
    }

    /// The events that nobody has asked for yet.
    pub(crate) fn events(&self) -> &[String] {
        &self.events
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.directives.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn verdict(&self, rule: &str, address: &str) -> Verdict {
        let refused = self.all(rule).find_map(|rule| {
            rule.split_once(' ').filter(|(refused, _)| *refused == address).map(|(_, text)| text)
        });
        match refused.map(|text| (text, text.strip_prefix('!'))) {
            None => Verdict::Accept,
            Some((_, Some(text))) => Verdict::RefuseAndClose(reply(text)),
            Some((text, None)) => Verdict::Refuse(reply(text)),
        }
    }

    fn outcome<T>(&self, rule: &str, good: T) -> Result<T, Reply> {
        self.all(rule).next().map_or(Ok(good), |text| Err(reply(text)))
    }

    /// Does what the session asks for; returns the answer where one is due.
    pub(crate) fn answer(&mut self, effect: Effect) -> Option<Answer> {
        match effect {
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
                let good = own && self.all("account").any(|one| one == known);
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
                if end.lacks_empty_line {
                    open.extend_from_slice(b"\r\n");
                }
            }
            Effect::Utf8Fields => self.events.push("Utf8Fields".to_owned()),
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
            Effect::NameClient(_) => return Some(Answer::ClientNamed(Ok(Upstream::default()))),
            Effect::Reply(_) | Effect::StartTls | Effect::Close => {}
        }
        None
    }
}

fn number<T: std::str::FromStr>(value: &str) -> T {
    value.parse().unwrap_or_else(|_| panic!("not a number: {value}"))
}

fn settings(directives: &[(String, String)]) -> SessionSettings {
    let mut settings = SessionSettings { hostname: "mx.example".to_owned(), ..Default::default() };
    for (key, value) in directives {
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
