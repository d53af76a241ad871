//! The text form of a list: one line an entry, as files are imported and exported.
//!
//! `PREFIX [scope=NAME] [ttl=DURATION] [observe] [# comment]`; blank lines and lines of comment alone are
//! skipped. All wrong lines are reported, up to a limit, and one is enough to refuse the file.

use std::fmt::Write as _;
use std::time::Duration;

use ipnet::IpNet;
use relay_common::entry::Scope;
use relay_core::prefix;

use crate::control::api::{Code, Problem, Row, TEXT_BYTES_MAX, scope_name};

/// Wrong lines that one refusal names.
const WRONG_LINES_MAX: usize = 20;
/// The word for what is only observed.
const OBSERVE: &str = "observe";
/// The longest line there can be: a prefix, its options and a comment.
const LINE_BYTES_MAX: usize = 1024;

/// One line as read. There may be a million, so it is no larger than it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1; 0 for what stands in no file.
    pub number: u32,
    pub prefix: IpNet,
    pub scope: Option<Scope>,
    pub lasts: Lasts,
    /// Counts what it would drop, and drops nothing.
    pub observe: bool,
    pub comment: Box<str>,
}

/// A lifetime ([`Line::ttl`]): whole seconds, rounded up. More than fit are more than anybody may
/// ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasts(u32);

impl Lasts {
    const FOR_EVER: Self = Self(u32::MAX);
    const LONGEST_S: u32 = u32::MAX - 1;
}

impl Line {
    /// A line that stands in no file.
    pub fn new(prefix: IpNet, scope: Scope) -> Self {
        let (number, lasts, observe, comment) = (0, Lasts::FOR_EVER, false, Box::default());
        Self { number, prefix, scope: Some(scope), lasts, observe, comment }
    }

    /// The same for so long; `None`: for ever.
    #[must_use]
    pub fn lasting(self, ttl: Option<Duration>) -> Self {
        let lasts = ttl.map_or(Lasts::FOR_EVER, |ttl| {
            let up = u64::from(ttl.subsec_nanos() > 0);
            let seconds = u32::try_from(ttl.as_secs().saturating_add(up));
            Lasts(seconds.unwrap_or(u32::MAX).min(Lasts::LONGEST_S))
        });
        Self { lasts, ..self }
    }

    pub fn ttl(&self) -> Option<Duration> {
        let lasts = (self.lasts != Lasts::FOR_EVER).then_some(self.lasts.0);
        lasts.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

/// Reads a whole file, or says which lines are wrong.
pub fn parse(name: &str, text: &[u8]) -> Result<Vec<Line>, Problem> {
    let mut reader = Reader::new(name);
    reader.push(text);
    reader.finish()
}

/// Reads a file that comes in pieces, of which it holds no more than the line that is not whole yet.
#[derive(Debug)]
pub struct Reader {
    name: String,
    /// The number of the line that `rest` begins.
    number: u64,
    rest: Vec<u8>,
    lines: Vec<Line>,
    wrong: Vec<String>,
    wrong_count: u64,
}

impl Reader {
    /// `name` is what the file is called when a line is wrong.
    pub fn new(name: &str) -> Self {
        let (rest, lines, wrong) = (Vec::new(), Vec::new(), Vec::new());
        Self { name: name.to_owned(), number: 1, rest, lines, wrong, wrong_count: 0 }
    }

    /// The next piece, of whatever length.
    pub fn push(&mut self, mut piece: &[u8]) {
        while let Some(end) = piece.iter().position(|&byte| byte == b'\n') {
            let (line, behind) = (&piece[..end], &piece[end + 1..]);
            if self.rest.is_empty() {
                self.line(line);
            } else {
                self.keep(line);
                let line = std::mem::take(&mut self.rest);
                self.line(&line);
            }
            piece = behind;
        }
        self.keep(piece);
    }

    /// Of a line that is too long there is no need of more than shows it.
    fn keep(&mut self, piece: &[u8]) {
        let room = (LINE_BYTES_MAX + 2).saturating_sub(self.rest.len());
        self.rest.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn line(&mut self, raw: &[u8]) {
        let number = self.number;
        self.number += 1;
        match parse_line(raw) {
            Ok(Some(line)) => {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                self.lines.push(Line { number, ..line });
            }
            Ok(None) => {}
            Err(why) => {
                self.wrong_count += 1;
                if self.wrong.len() < WRONG_LINES_MAX {
                    self.wrong.push(format!("{}:{number}: {why}", self.name));
                }
            }
        }
    }

    /// The end of the file: all of its lines, or those that are wrong.
    pub fn finish(mut self) -> Result<Vec<Line>, Problem> {
        let last = std::mem::take(&mut self.rest);
        self.line(&last);
        let Some(first) = self.wrong.first() else { return Ok(self.lines) };
        let more = match self.wrong_count - 1 {
            0 => String::new(),
            n => format!("; {n} more wrong {}", if n == 1 { "line" } else { "lines" }),
        };
        Err(Problem::new(Code::Invalid, format!("{first}{more}; nothing was imported"))
            .remedy("a line is: PREFIX [scope=NAME] [ttl=DURATION] [observe] [# comment]")
            .details(self.wrong))
    }
}

fn parse_line(raw: &[u8]) -> Result<Option<Line>, String> {
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
    if raw.len() > LINE_BYTES_MAX {
        return Err(format!("the line is longer than {LINE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(raw)
        .map_err(|_| format!("{:?} is not UTF-8", String::from_utf8_lossy(raw)))?;
    let (entry, comment) = text.split_once('#').unwrap_or((text, ""));
    let comment = comment.trim();
    check_text("comment", comment)?;
    // Options are words with an equals sign, and `observe`; what stands before them is the prefix,
    // which may have spaces of its own (`192.168.0.0 / 255.255.0.0`).
    let is_option = |word: &&str| word.contains('=') || *word == OBSERVE;
    let mut words: Vec<&str> = entry.split_whitespace().collect();
    let first_option = words.iter().position(is_option).unwrap_or(words.len());
    let options = words.split_off(first_option);
    if words.is_empty() && options.is_empty() {
        return Ok(None);
    }
    let prefix = prefix::parse(&words.join(" ")).map_err(|error| error.to_string())?;
    let mut line = Line { scope: None, comment: comment.into(), ..Line::new(prefix, Scope::ALL) };
    for option in options {
        match option.split_once('=') {
            None if option == OBSERVE && !line.observe => line.observe = true,
            Some(("scope", name)) if line.scope.is_none() => {
                line.scope = Some(scope_name::parse(name)?);
            }
            Some(("ttl", text)) if line.ttl().is_none() => {
                line = line.lasting(Some(parse_ttl(text)?));
            }
            _ => {
                return Err(format!(
                    "{option:?} is not scope=NAME, ttl=DURATION or observe, given once"
                ));
            }
        }
    }
    Ok(Some(line))
}

/// A lifetime of at least a second.
pub fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is no duration such as 10min or 1h: {error}"))?;
    if ttl < Duration::from_secs(1) {
        return Err(format!("{text:?} is shorter than a second"));
    }
    Ok(ttl)
}

/// Whether a text can be kept and printed on a line: bounded, and without control characters,
/// which could forge a line of a log or move a terminal's cursor.
pub fn check_text(what: &str, text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the {what} is longer than {TEXT_BYTES_MAX} bytes"));
    }
    if text.chars().any(is_unprintable) {
        return Err(format!("the {what} has control characters"));
    }
    Ok(())
}

/// Control characters, and those of Unicode that end a line or turn the direction of what follows.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text made to pass [`check_text`]: its control characters are replaced, and its end is cut off
/// where it is too long. For texts with parts that a stranger chose.
pub fn fit_text(text: &str) -> String {
    let mut fitted: String = text
        .chars()
        .map(|c| if is_unprintable(c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if fitted.len() > TEXT_BYTES_MAX {
        fitted.truncate(fitted.floor_char_boundary(TEXT_BYTES_MAX - '…'.len_utf8()));
        fitted.push('…');
    }
    fitted
}

/// The line that, imported at `wall_s`, makes the row again.
pub fn format(row: &Row, wall_s: u64) -> String {
    let mut line = format!("{} scope={}", row.prefix, row.scope);
    if let Some(expires) = row.expires {
        // A row in its last moment still has a line that can be read back.
        let _ = write!(line, " ttl={}s", expires.0.saturating_sub(wall_s).max(1));
    }
    if row.observe {
        let _ = write!(line, " {OBSERVE}");
    }
    if !row.comment.is_empty() {
        let _ = write!(line, " # {}", row.comment);
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use relay_common::entry::Reason;

    use super::*;
    use crate::control::api::Time;

    #[test]
    fn a_file_is_read_with_everything_a_line_may_have() {
        let text = b"# a list\n\n192.0.2.0/24\r\n2001:db8::1 scope=mx ttl=1h # abuse # again\n\
                     192.168.0.0 / 255.255.0.0 observe ttl=10min\n::ffff:198.51.100.7";
        let lines = parse("drop.txt", text).unwrap();
        let prefixes: Vec<String> = lines.iter().map(|line| line.prefix.to_string()).collect();
        assert_eq!(
            prefixes,
            ["192.0.2.0/24", "2001:db8::1/128", "192.168.0.0/16", "198.51.100.7/32"]
        );
        assert_eq!(lines[1].scope, Some(Scope::MX));
        assert_eq!(lines[1].ttl(), Some(Duration::from_secs(3600)));
        assert_eq!(&*lines[1].comment, "abuse # again");
        assert!(lines[2].observe && !lines[1].observe);
        assert_eq!(lines[2].ttl(), Some(Duration::from_secs(600)));
    }

    #[test]
    fn each_wrong_line_is_named_with_its_value() {
        let text = b"192.0.2.0/24\n10.0.0.1/8\n192.0.2.1 scope=ftp\n192.0.2.1 ttl=0s\n\
                     192.0.2.1 ttl=1h ttl=2h\nscope=mx\n\xff\n192.0.2.1 # \x1b[2J\nfoo\n192.0.2.1 observe observe";
        let problem = parse("drop.txt", text).unwrap_err();
        assert_eq!(problem.code, Code::Invalid);
        assert!(problem.message.starts_with("drop.txt:2: \"10.0.0.1/8\""), "{problem}");
        assert!(problem.message.contains("8 more wrong lines"), "{problem}");
        for (detail, part) in problem.details.iter().zip([
            "drop.txt:2: \"10.0.0.1/8\" has bits set beyond its length; the network is 10.0.0.0/8",
            "drop.txt:3: \"ftp\"",
            "drop.txt:4: \"0s\"",
            "drop.txt:5: \"ttl=2h\"",
            "drop.txt:6: an address or a prefix is missing",
            "drop.txt:7: \"\u{fffd}\" is not UTF-8",
            "drop.txt:8: the comment has control characters",
            "drop.txt:9: \"foo\"",
            "drop.txt:10: \"observe\"",
        ]) {
            assert!(detail.starts_with(part), "{detail}");
        }
    }

    #[test]
    fn a_file_of_nothing_but_wrong_lines_is_reported_in_bounds() {
        let problem = parse("x", "foo\n".repeat(10_000).as_bytes()).unwrap_err();
        assert_eq!(problem.details.len(), WRONG_LINES_MAX);
    }

    #[test]
    fn what_turns_a_terminals_text_around_is_no_text() {
        for text in ["\u{202e}gpj.exe", "a\u{2028}b", "\u{2066}", "\u{9b}2J", "\u{7f}"] {
            assert!(check_text("comment", text).is_err(), "{text:?}");
        }
        assert_eq!(check_text("comment", "Schlüssel 🙂 ключ"), Ok(()));
    }

    #[test]
    fn a_lifetime_is_rounded_up_and_none_becomes_for_ever() {
        let line = Line::new("192.0.2.1/32".parse().unwrap(), Scope::MX);
        assert_eq!(line.ttl(), None);
        for (ttl, kept_s) in [
            (Duration::ZERO, 0),
            (Duration::from_millis(1_001), 2),
            (Duration::from_secs(u64::MAX), u64::from(u32::MAX) - 1),
            (Duration::from_secs(u64::from(u32::MAX)), u64::from(u32::MAX) - 1),
        ] {
            let kept = line.clone().lasting(Some(ttl)).ttl();
            assert_eq!(kept, Some(Duration::from_secs(kept_s)));
        }
        assert_eq!(line.lasting(None).ttl(), None);
        assert!(size_of::<Line>() <= 48, "{}", size_of::<Line>());
    }

    proptest! {
        #[test]
        fn pieces_are_read_as_the_whole_is(
            text in prop::collection::vec("[0-9.]{0,12}|foo|192\\.0\\.2\\.[0-9]|192\\.0\\.2\\.1 {1010,1020}|\r", 0..12),
            cuts in prop::collection::vec(0usize..4000, 0..6),
        ) {
            let text = text.join("\n");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut reader = Reader::new("x");
            for ends in cuts.windows(2) {
                reader.push(&text.as_bytes()[ends[0]..ends[1]]);
            }
            let whole: Vec<_> = text.split('\n').map(|line| parse_line(line.as_bytes())).collect();
            let wrong = whole.iter().filter(|line| line.is_err()).count();
            match reader.finish() {
                Ok(lines) => {
                    prop_assert_eq!(wrong, 0);
                    let prefixes = |lines: &[Line]| -> Vec<_> {
                        lines.iter().map(|line| line.prefix).collect()
                    };
                    let whole: Vec<Line> = whole.into_iter().flatten().flatten().collect();
                    prop_assert_eq!(prefixes(&lines), prefixes(&whole));
                }
                Err(problem) => prop_assert_eq!(problem.details.len(), wrong.min(WRONG_LINES_MAX)),
            }
        }

        #[test]
        fn a_fitted_text_passes(text in "\\PC{0,400}|.{0,400}|[\\x00-\\x1f]{0,400}") {
            let fitted = fit_text(&text);
            prop_assert_eq!(check_text("text", &fitted), Ok(()));
            if check_text("text", &text).is_ok() {
                prop_assert_eq!(fitted, text);
            }
        }

        #[test]
        fn a_row_survives_export_and_import(
            bits in any::<u128>(), len in 0u8..=128, scope in 1u8..16,
            left in prop::option::of(1u64..1_000_000), observe: bool, comment in "[a-z#=/ ]{0,20}",
        ) {
            let row = Row {
                prefix: prefix::canonical_net(
                    IpNet::new(std::net::IpAddr::from(bits.to_be_bytes()), len).unwrap(),
                ),
                scope: Scope::from_bits(scope),
                observe,
                reason: Reason::Manual,
                rule: "cli".into(),
                source: "cli".into(),
                comment: comment.trim().into(),
                created: Time(5),
                expires: left.map(|left| Time(1_000 + left)),
            };
            let line = parse_line(format(&row, 1_000).as_bytes()).unwrap().unwrap();
            prop_assert_eq!(line.prefix, row.prefix);
            prop_assert_eq!(line.scope, Some(row.scope));
            prop_assert_eq!(line.ttl(), left.map(Duration::from_secs));
            prop_assert_eq!(line.observe, row.observe);
            prop_assert_eq!(&*line.comment, row.comment);
        }

        #[test]
        fn no_bytes_make_the_parser_fall(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse("x", &bytes);
        }
    }
}
