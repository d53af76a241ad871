//! Command lines to typed commands (RFC 5321 section 4.1.1), parameters included.

use super::address::{AddressError, ForwardPath, ReversePath};
use super::options::{MailOptions, RcptOptions};
use super::reply::Reply;

mod parameters;

/// One command as typed by the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// The name the client gives itself.
    Ehlo(&'a str),
    /// The same, without extensions.
    Helo(&'a str),
    /// The same in LMTP (RFC 2033).
    Lhlo(&'a str),
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
    /// BDAT (RFC 3030).
    Bdat(Chunk),
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
    /// What stays with the message.
    pub options: MailOptions,
}

/// BODY of MAIL (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BodyType {
    /// 7BIT, or not said.
    #[default]
    SevenBit,
    /// 8BITMIME.
    EightBitMime,
    /// BINARYMIME (RFC 3030): any octets, in BDAT alone.
    BinaryMime,
}

/// A piece of content that follows the line of its BDAT at once (RFC 3030 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// In octets.
    pub size: u64,
    /// It ends the message.
    pub is_last: bool,
}

/// RCPT, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptCommand {
    /// Whom to deliver to.
    pub forward_path: ForwardPath,
    /// What stays with the recipient.
    pub options: RcptOptions,
}

/// What a client may say in its commands, by what it has said before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dialect {
    /// It said EHLO or LHLO, so that the parameters of the reply may be used.
    pub extended: bool,
    /// Its MAIL said SMTPUTF8, so that a recipient may be in UTF-8.
    pub utf8: bool,
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
    /// BDAT without a length that can be read: what follows is content, and nobody knows how much.
    #[error("bad chunk size")]
    Chunk,
}

impl CommandError {
    /// The reply that RFC 5321 section 4.2.2 and RFC 5248 have for it.
    pub fn reply(self) -> Reply {
        match self {
            Self::NotUtf8 => Reply::new(501, (5, 5, 2), "Command is not UTF-8"),
            Self::Control => Reply::new(501, (5, 5, 2), "Control character in command"),
            Self::Unknown => Reply::new(500, (5, 5, 1), "Command not recognized"),
            Self::Arguments => Reply::new(501, (5, 5, 4), "Syntax error in arguments"),
            Self::Chunk => Reply::new(501, (5, 5, 4), "Bad size of a chunk"),
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

/// Understands one line, which has no CR or LF.
pub fn parse(line: &[u8], dialect: Dialect) -> Result<Command<'_>, CommandError> {
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
        4 if is("LHLO") => helo_name(arguments).map(Command::Lhlo),
        4 if is("MAIL") => parameters::mail(arguments, dialect).map(Command::Mail),
        4 if is("RCPT") => parameters::rcpt(arguments, dialect).map(Command::Rcpt),
        4 if is("BDAT") => parameters::bdat(arguments).map(Command::Bdat),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::options::{Notify, Returned};
    use proptest::prelude::*;

    const PLAIN: Dialect = Dialect { extended: false, utf8: false };
    const EXTENDED: Dialect = Dialect { extended: true, utf8: false };

    fn mail_of(line: &str) -> MailCommand {
        match parse(line.as_bytes(), EXTENDED) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error_of(line: &[u8]) -> u16 {
        parse(line, EXTENDED).expect_err(&line.escape_ascii().to_string()).reply().code()
    }

    #[test]
    fn verbs_and_keywords_in_any_case() {
        assert_eq!(parse(b"eHlO x", PLAIN), Ok(Command::Ehlo("x")));
        assert_eq!(parse(b"quit  ", PLAIN), Ok(Command::Quit));
        assert_eq!(parse(b"get / HTTP/1.1", PLAIN), Ok(Command::Http));
        let mail = mail_of("mail from: <A@b> size=7 body=8bitmime auth=<>");
        assert_eq!((mail.size, mail.body), (Some(7), BodyType::EightBitMime));
        assert_eq!(mail.auth.as_deref(), Some(""));
        assert_eq!(mail_of("MAIL FROM:<> AUTH=e+3Df@x").auth.as_deref(), Some("e=f@x"));
        assert_eq!(mail_of("MAIL FROM:<> SIZE=99999999999999999999").size, Some(u64::MAX));
        let auth = Command::Auth { mechanism: "PLAIN", initial: Some("=") };
        assert_eq!(parse(b"AUTH PLAIN =", PLAIN), Ok(auth));
    }

    #[test]
    fn options_stay_with_message_and_recipient() {
        let mail = mail_of("MAIL FROM:<j\u{fc}@b> SMTPUTF8 ret=hdrs envid=Q+2B1 REQUIRETLS");
        let expected = MailOptions {
            utf8: true,
            require_tls: true,
            ret: Some(Returned::Headers),
            envid: Some("Q+1".to_owned()),
        };
        assert_eq!((mail.options, mail.body), (expected, BodyType::SevenBit));
        assert_eq!(mail_of("MAIL FROM:<a@b> BODY=BINARYMIME").body, BodyType::BinaryMime);
        let line = "RCPT TO:<\u{fc}@b> NOTIFY=failure ORCPT=rfc822;x@y";
        let utf8 = Dialect { utf8: true, ..EXTENDED };
        let Ok(Command::Rcpt(rcpt)) = parse(line.as_bytes(), utf8) else { panic!("{line}") };
        assert_eq!(rcpt.options.notify, Some(Notify::FAILURE));
        assert_eq!(rcpt.options.orcpt.unwrap().address(), "x@y");
        assert_eq!(error_of(line.as_bytes()), 553);
        for (line, size, is_last) in [("BDAT 0 last", 0, true), ("bdat 86", 86, false)] {
            let chunk = Chunk { size, is_last };
            assert_eq!(parse(line.as_bytes(), PLAIN), Ok(Command::Bdat(chunk)));
        }
    }

    #[test]
    fn each_error_has_its_reply() {
        for line in ["", "MAILFROM:<a@b>", "MAI", "\u{e4}"] {
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
            "MAIL FROM:<a@b> BODY=9BIT",
            "MAIL FROM:<a@b> RET=SOME",
            "MAIL FROM:<a@b> ENVID=",
            "MAIL FROM:<a@b> ENVID=a ENVID=b",
            "MAIL FROM:<a@b> SMTPUTF8=1",
            "MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8",
            "MAIL FROM:<a@b> REQUIRETLS=YES",
            "RCPT TO:<a@b> NOTIFY",
            "RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS",
            "RCPT TO:<a@b> ORCPT=a@b",
            "BDAT",
            "BDAT x",
            "BDAT -1",
            "BDAT 1 FIRST",
            "BDAT 1 LAST LAST",
            "BDAT 99999999999999999999999",
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
        assert_eq!(error_of(b"MAIL FROM:<a@b> NOTIFY=NEVER"), 555);
        assert_eq!(error_of(b"RCPT TO:<a@b> RET=FULL"), 555);
        assert_eq!(parse(b"RCPT TO:<a@b> NOTIFY=NEVER", PLAIN), Err(CommandError::Parameter));
        assert_eq!(error_of("RCPT TO:<\u{e4}@b>".as_bytes()), 553);
        assert_eq!(parse(b"MAIL FROM:<a@b> SIZE=1", PLAIN), Err(CommandError::Parameter));
    }

    proptest! {
        #[test]
        fn arbitrary_lines_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..80),
            shaped in "(MAIL FROM:|RCPT TO:|AUTH |EHLO |VRFY |BDAT )[ -~]{0,40}",
        ) {
            let _ = parse(&bytes, EXTENDED);
            let _ = parse(shaped.as_bytes(), EXTENDED);
        }
    }
}
