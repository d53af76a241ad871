//! Reads `*.smtp` dialogues: what a client says, what it must hear, and what the gateway was
//! told beforehand. It knows nothing of sessions or sockets, so that one file can run against
//! the pure session and over a real connection. The format is described in `README.md` beside.

use std::collections::VecDeque;
use std::path::Path;

/// One step of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send the banner; only where `@silent` holds it back.
    Greet,
    /// The client sends these bytes in one write.
    Send(Vec<u8>),
    /// The next reply line is this; `...` at its end stands for any rest.
    Expect(String),
    /// The gateway has closed the connection, and said nothing more.
    Closed,
    /// The TLS handshake that was agreed to is made.
    Tls,
    /// The client closes.
    Eof,
    /// This many seconds pass.
    Wait(u64),
    /// The gateway is told to stop.
    ShutDown,
    /// Exactly this content was stored since the last look.
    Stored(Vec<u8>),
    /// Nothing was stored since the last look.
    NothingStored,
    /// An event whose name begins so was reported.
    Event(String),
}

/// A whole file.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// `@key value` lines, in order: settings, and rules for policy, accounts and store.
    pub(crate) directives: Vec<(String, String)>,
    /// Steps with their line numbers.
    pub(crate) steps: VecDeque<(usize, Step)>,
}

impl Script {
    /// Reads a file; panics, naming the line, where it is malformed.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut script = Self::default();
        for (index, line) in text.lines().enumerate() {
            script
                .line(index + 1, line)
                .unwrap_or_else(|what| panic!("{}:{}: {what}", path.display(), index + 1));
        }
        script
    }

    /// All values of a directive.
    pub(crate) fn directive<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.directives.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn line(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(());
        }
        if let Some(directive) = line.strip_prefix('@') {
            let (key, value) = directive.split_once(' ').unwrap_or((directive, ""));
            self.directives.push((key.to_owned(), value.trim().to_owned()));
            return Ok(());
        }
        let (times, line) = match line.split_once("x ") {
            Some((count, rest)) if count.bytes().all(|byte| byte.is_ascii_digit()) => {
                (count.parse::<usize>().map_err(|error| error.to_string())?, rest)
            }
            _ => (1, line),
        };
        let step = parse_step(line)?;
        for _ in 0..times {
            // Lines sent one behind the other are one write: that is how clients pipeline.
            match (self.steps.back_mut(), &step) {
                (Some((_, Step::Send(before))), Step::Send(bytes)) => before.extend(bytes),
                _ => self.steps.push_back((number, step.clone())),
            }
        }
        Ok(())
    }
}

fn parse_step(line: &str) -> Result<Step, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    Ok(match word {
        "C:" => Step::Send([unescape(rest)?, b"\r\n".to_vec()].concat()),
        "c:" => Step::Send(unescape(rest)?),
        "S:" => Step::Expect(rest.to_owned()),
        "GREET" => Step::Greet,
        "CLOSED" => Step::Closed,
        "TLS" => Step::Tls,
        "EOF" => Step::Eof,
        "SHUTDOWN" => Step::ShutDown,
        "WAIT" => Step::Wait(rest.parse().map_err(|_| "WAIT needs seconds")?),
        "STORED" => Step::Stored(unescape(rest)?),
        "NOTHING-STORED" => Step::NothingStored,
        "EVENT" => Step::Event(rest.to_owned()),
        _ => return Err(format!("unknown step {word:?}")),
    })
}

/// `\r`, `\n`, `\t`, `\\`, `\xHH`, and `\*NUMBER{text}` for a repetition.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let mut length = 1;
        match escape.bytes().next() {
            Some(b'r') => bytes.push(b'\r'),
            Some(b'n') => bytes.push(b'\n'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                let digits = escape.get(1..3).ok_or("\\x needs two digits")?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?);
                length = 3;
            }
            Some(b'*') => {
                let (count, inner) = escape[1..].split_once('{').ok_or("\\* needs {")?;
                let end = inner.find('}').ok_or("\\* needs }")?;
                let times = count.parse::<usize>().map_err(|error| error.to_string())?;
                bytes.extend(unescape(&inner[..end])?.repeat(times));
                length = 1 + count.len() + 1 + end + 1;
            }
            _ => return Err(format!("unknown escape at {escape:?}")),
        }
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}
