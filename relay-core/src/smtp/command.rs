//! Command lines to typed commands (RFC 5321 section 4.1.1), parameters included.

use crate::smtp::address::{AddressError, ForwardPath, ReversePath};
use crate::smtp::reply::Reply;

/// One command as typed by the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// The name the client gives itself.
    Ehlo(&'a str),
    /// The same, without extensions.
    Helo(&'a str),
    /// RFC 3207.
    StartTls,
    /// RFC 4954.
    Auth {
        /// The mechanism, in the client's case.
        mechanism: &'a str,
        /// The initial response, `=` standing for an empty one.
        initial: Option<&'a str>,
    },
    /// MAIL FROM.
    Mail(MailCommand),
    /// RCPT TO.
    Rcpt(RcptCommand),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP, whatever stands behind it.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY with an argument.
    Vrfy,
    /// EXPN.
    Expn,
    /// HELP.
    Help,
    /// The request line of HTTP: a web client, or a browser that was tricked.
    Http,
}

/// MAIL, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailCommand {
    /// Whom to notify.
    pub reverse_path: ReversePath,
    /// SIZE, in octets (RFC 1870).
    pub size: Option<u64>,
    /// BODY (RFC 6152).
    pub body: BodyType,
    /// AUTH (RFC 4954 section 5): who submitted the message, says the client. `Some("")` is `<>`.
    pub auth: Option<String>,
}

/// BODY of MAIL (RFC 6152).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BodyType {
    /// 7BIT, or not said.
    #[default]
    SevenBit,
    /// 8BITMIME.
    EightBitMime,
}

/// RCPT, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptCommand {
    /// Whom to deliver to.
    pub forward_path: ForwardPath,
}

/// Why a line is no command. [`CommandError::reply`] says so to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// NUL, DEL or another control character.
    #[error("control character")]
    Control,
    /// No command of this server.
    #[error("unknown command")]
    Unknown,
    /// Arguments missing, too many or malformed.
    #[error("bad arguments")]
    Arguments,
    /// The address of MAIL.
    #[error("bad reverse-path: {0}")]
    ReversePath(AddressError),
    /// The address of RCPT.
    #[error("bad forward-path: {0}")]
    ForwardPath(AddressError),
    /// No address, but what once was a way to have mail passed on.
    #[error("asks to be routed")]
    Routing,
    /// A parameter that was not offered.
    #[error("unknown parameter")]
    Parameter,
}

impl CommandError {
    /// The reply that RFC 5321 section 4.2.2 and RFC 5248 have for it.
    pub fn reply(self) -> Reply {
        match self {
            Self::NotUtf8 => Reply::new(501, (5, 5, 2), "Command is not UTF-8"),
            Self::Control => Reply::new(501, (5, 5, 2), "Control character in command"),
            Self::Unknown => Reply::new(500, (5, 5, 1), "Command not recognized"),
            Self::Arguments => Reply::new(501, (5, 5, 4), "Syntax error in arguments"),
            // RFC 6531 section 3.5: SMTPUTF8 was not asked for.
            Self::ReversePath(AddressError::NotAscii)
            | Self::ForwardPath(AddressError::NotAscii) => {
                Reply::new(553, (5, 6, 7), "Address is not ASCII")
            }
            Self::ReversePath(_) => Reply::new(501, (5, 1, 7), "Bad sender address syntax"),
            Self::ForwardPath(_) => Reply::new(501, (5, 1, 3), "Bad recipient address syntax"),
            Self::Routing => Reply::new(550, (5, 7, 1), "Relaying is prohibited"),
            Self::Parameter => Reply::new(555, (5, 5, 4), "Parameter not recognized"),
        }
    }
}

/// Longest EHLO or HELO argument (RFC 5321 section 4.5.3.1.2).
const HELO_MAX: usize = 255;
/// Most digits of SIZE (RFC 1870 section 4).
const SIZE_DIGITS_MAX: usize = 20;

/// Understands one line, which has no CR or LF. `extended`: the client said EHLO, so that the
/// parameters of its reply may be used.
pub fn parse(line: &[u8], extended: bool) -> Result<Command<'_>, CommandError> {
    let line = std::str::from_utf8(line).map_err(|_| CommandError::NotUtf8)?;
    if line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(CommandError::Control);
    }
    let (verb, arguments) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let arguments = arguments.trim_matches([' ', '\t']);
    let bare =
        |command| if arguments.is_empty() { Ok(command) } else { Err(CommandError::Arguments) };
    let is = |name: &str| verb.eq_ignore_ascii_case(name);
    match verb.len() {
        4 if is("EHLO") => helo_name(arguments).map(Command::Ehlo),
        4 if is("HELO") => helo_name(arguments).map(Command::Helo),
        4 if is("MAIL") => mail(arguments, extended),
        4 if is("RCPT") => rcpt(arguments),
        4 if is("DATA") => bare(Command::Data),
        4 if is("RSET") => bare(Command::Rset),
        4 if is("NOOP") => Ok(Command::Noop),
        4 if is("QUIT") => bare(Command::Quit),
        4 if is("AUTH") => auth(arguments),
        4 if is("VRFY") && arguments.is_empty() => Err(CommandError::Arguments),
        4 if is("VRFY") => Ok(Command::Vrfy),
        4 if is("EXPN") => Ok(Command::Expn),
        4 if is("HELP") => Ok(Command::Help),
        8 if is("STARTTLS") => bare(Command::StartTls),
        _ if is_http(verb) => Ok(Command::Http),
        _ => Err(CommandError::Unknown),
    }
}

/// The methods of RFC 9110 section 9, PATCH, and the preface of HTTP/2.
fn is_http(verb: &str) -> bool {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI"]
        .iter()
        .any(|method| verb.eq_ignore_ascii_case(method))
}

/// One word of printable ASCII. RFC 5321 section 4.1.4 forbids refusing mail because the name is
/// wrong, and honest clients give all sorts of names, so its grammar is not checked here.
fn helo_name(arguments: &str) -> Result<&str, CommandError> {
    let word = arguments.bytes().all(|byte| byte.is_ascii_graphic());
    if word && (1..=HELO_MAX).contains(&arguments.len()) {
        Ok(arguments)
    } else {
        Err(CommandError::Arguments)
    }
}

fn auth(arguments: &str) -> Result<Command<'_>, CommandError> {
    let mut words = arguments.split_ascii_whitespace();
    let mechanism = words.next().ok_or(CommandError::Arguments)?;
    let initial = words.next();
    match words.next() {
        None => Ok(Command::Auth { mechanism, initial }),
        Some(_) => Err(CommandError::Arguments),
    }
}

/// What follows `FROM:` or `TO:`. Spaces behind the colon are not in the grammar, but common.
fn after_keyword<'a>(arguments: &'a str, keyword: &str) -> Result<&'a str, CommandError> {
    match arguments.split_at_checked(keyword.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(keyword) => Ok(rest.trim_start()),
        _ => Err(CommandError::Arguments),
    }
}

/// Parameters behind a path: separated from it, or none.
fn parameters(rest: &str) -> Option<impl Iterator<Item = (&str, Option<&str>)>> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    Some(rest.split_ascii_whitespace().map(|word| match word.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (word, None),
    }))
}

fn mail(arguments: &str, extended: bool) -> Result<Command<'_>, CommandError> {
    let text = after_keyword(arguments, "FROM:")?;
    let (reverse_path, rest) = ReversePath::parse(text).map_err(CommandError::ReversePath)?;
    let syntax = CommandError::ReversePath(AddressError::Syntax);
    let (mut size, mut body, mut auth) = (None, None, None);
    for (keyword, value) in parameters(rest).ok_or(syntax)? {
        let is = |name: &str| extended && keyword.eq_ignore_ascii_case(name);
        let repeated = if is("SIZE") {
            size.replace(size_value(value)?).is_some()
        } else if is("BODY") {
            body.replace(body_value(value)?).is_some()
        } else if is("AUTH") {
            auth.replace(auth_value(value)?).is_some()
        } else {
            return Err(CommandError::Parameter);
        };
        if repeated {
            return Err(CommandError::Arguments);
        }
    }
    let body = body.unwrap_or_default();
    Ok(Command::Mail(MailCommand { reverse_path, size, body, auth }))
}

fn rcpt(arguments: &str) -> Result<Command<'_>, CommandError> {
    let text = after_keyword(arguments, "TO:")?;
    let (forward_path, rest) = ForwardPath::parse(text).map_err(|error| {
        if asks_to_route(text) { CommandError::Routing } else { CommandError::ForwardPath(error) }
    })?;
    let syntax = CommandError::ForwardPath(AddressError::Syntax);
    match parameters(rest).ok_or(syntax)?.next() {
        None => Ok(Command::Rcpt(RcptCommand { forward_path })),
        Some(_) => Err(CommandError::Parameter),
    }
}

/// Whether something that is no address would have made an older server pass the message on:
/// `user%other`, `other!user`, `"user@other"` without a domain, `user@other@here`.
fn asks_to_route(path: &str) -> bool {
    let path = path.split('>').next().unwrap_or(path);
    path.contains(['%', '!', '"']) || path.matches('@').count() > 1
}

/// RFC 1870 section 4: up to twenty digits. More than 64 bits hold is larger than any limit.
fn size_value(value: Option<&str>) -> Result<u64, CommandError> {
    let digits = value.ok_or(CommandError::Arguments)?;
    let digits_only = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !digits_only || !(1..=SIZE_DIGITS_MAX).contains(&digits.len()) {
        return Err(CommandError::Arguments);
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

fn body_value(value: Option<&str>) -> Result<BodyType, CommandError> {
    match value {
        Some(value) if value.eq_ignore_ascii_case("7BIT") => Ok(BodyType::SevenBit),
        Some(value) if value.eq_ignore_ascii_case("8BITMIME") => Ok(BodyType::EightBitMime),
        _ => Err(CommandError::Arguments),
    }
}

/// RFC 4954 section 5: `<>` or a mailbox, as xtext (RFC 3461 section 4).
fn auth_value(value: Option<&str>) -> Result<String, CommandError> {
    let decoded = xtext(value.ok_or(CommandError::Arguments)?).ok_or(CommandError::Arguments)?;
    match decoded.as_str() {
        "<>" => Ok(String::new()),
        "" => Err(CommandError::Arguments),
        _ => Ok(decoded),
    }
}

/// `+` and two upper-case hexadecimal digits stand for one octet; printable ASCII alone comes out.
fn xtext(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = String::new();
    while let Some(byte) = bytes.next() {
        let octet = match byte {
            b'+' => hex(bytes.next()?)? * 16 + hex(bytes.next()?)?,
            b'=' => return None,
            byte => byte,
        };
        if !matches!(octet, b' '..=b'~') {
            return None;
        }
        decoded.push(char::from(octet));
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mail_of(line: &str) -> MailCommand {
        match parse(line.as_bytes(), true) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error_of(line: &[u8]) -> u16 {
        parse(line, true).expect_err(&line.escape_ascii().to_string()).reply().code()
    }

    #[test]
    fn verbs_and_keywords_in_any_case() {
        assert_eq!(parse(b"eHlO x", false), Ok(Command::Ehlo("x")));
        assert_eq!(parse(b"quit  ", false), Ok(Command::Quit));
        assert_eq!(parse(b"get / HTTP/1.1", false), Ok(Command::Http));
        let mail = mail_of("mail from: <A@b> size=7 body=8bitmime auth=<>");
        assert_eq!((mail.size, mail.body), (Some(7), BodyType::EightBitMime));
        assert_eq!(mail.auth.as_deref(), Some(""));
        assert_eq!(mail_of("MAIL FROM:<> AUTH=e+3Df@x").auth.as_deref(), Some("e=f@x"));
        assert_eq!(mail_of("MAIL FROM:<> SIZE=99999999999999999999").size, Some(u64::MAX));
        let auth = Command::Auth { mechanism: "PLAIN", initial: Some("=") };
        assert_eq!(parse(b"AUTH PLAIN =", false), Ok(auth));
    }

    #[test]
    fn each_error_has_its_reply() {
        for line in ["", "LHLO x", "MAILFROM:<a@b>", "BDAT 3", "MAI", "\u{e4}"] {
            assert_eq!(error_of(line.as_bytes()), 500, "{line}");
        }
        for line in [
            "EHLO",
            "EHLO a b",
            "HELO \u{e4}",
            "MAIL",
            "MAIL TO:<a@b>",
            "MAIL FROM:a@b",
            "MAIL FROM:<a@b>SIZE=1",
            "MAIL FROM:<a@b> SIZE=",
            "MAIL FROM:<a@b> SIZE=-1",
            "MAIL FROM:<a@b> SIZE=1 SIZE=1",
            "MAIL FROM:<a@b> BODY=BINARYMIME",
            "MAIL FROM:<a@b> AUTH=+4",
            "MAIL FROM:<a@b> AUTH",
            "RCPT TO:<>",
            "RCPT TO:",
            "DATA x",
            "AUTH",
            "AUTH PLAIN a b",
            "VRFY",
            "STARTTLS x",
            "RSET x",
            "QUIT x",
            "NOOP \0",
        ] {
            assert_eq!(error_of(line.as_bytes()), 501, "{line}");
        }
        assert_eq!(error_of(b"NOOP \xff"), 501);
        assert_eq!(error_of(b"MAIL FROM:<a@b> RET=FULL"), 555);
        assert_eq!(error_of(b"RCPT TO:<a@b> NOTIFY=NEVER"), 555);
        assert_eq!(error_of("RCPT TO:<\u{e4}@b>".as_bytes()), 553);
        assert_eq!(parse(b"MAIL FROM:<a@b> SIZE=1", false), Err(CommandError::Parameter));
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            shaped in "(MAIL FROM:|RCPT TO:|AUTH |EHLO |VRFY )[ -~]{0,40}",
        ) {
            let _ = parse(&bytes, true);
            let _ = parse(shaped.as_bytes(), true);
        }
    }
}
