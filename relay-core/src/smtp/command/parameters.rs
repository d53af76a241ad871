//! The arguments of MAIL, RCPT and BDAT: paths, and the parameters of extensions.

use super::{BodyType, Chunk, CommandError, Dialect, MailCommand, RcptCommand};
use crate::smtp::address::{AddressError, ForwardPath, ReversePath};
use crate::smtp::options::{self, MailOptions, Notify, OriginalRecipient, RcptOptions, Returned};
use crate::smtp::xtext;

/// Most digits of SIZE (RFC 1870 section 4) and of a chunk's size (RFC 3030 section 2).
const SIZE_DIGITS_MAX: usize = 20;

/// What follows MAIL.
pub(super) fn mail(arguments: &str, dialect: Dialect) -> Result<MailCommand, CommandError> {
    let text = after_keyword(arguments, "FROM:")?;
    let (reverse_path, rest) = ReversePath::parse(text).map_err(CommandError::ReversePath)?;
    let is_ascii = text[..text.len() - rest.len()].is_ascii();
    let (mut size, mut body, mut auth, mut ret, mut envid) = (None, None, None, None, None);
    let (mut utf8, mut require_tls) = (None, None);
    let syntax = CommandError::ReversePath(AddressError::Syntax);
    for Parameter { keyword, value } in parameters(rest, dialect).ok_or(syntax)? {
        match keyword.to_ascii_uppercase().as_str() {
            "SIZE" => once(&mut size, size_value(value)),
            "BODY" => once(&mut body, body_value(value)),
            "AUTH" => once(&mut auth, auth_value(value)),
            "RET" => once(&mut ret, value.and_then(Returned::parse)),
            "ENVID" => once(&mut envid, value.and_then(options::parse_envid)),
            "SMTPUTF8" => once(&mut utf8, no_value(value)),
            "REQUIRETLS" => once(&mut require_tls, no_value(value)),
            _ => return Err(CommandError::Parameter),
        }?;
    }
    if !is_ascii && utf8.is_none() {
        return Err(CommandError::ReversePath(AddressError::NotAscii));
    }
    let (utf8, require_tls) = (utf8.is_some(), require_tls.is_some());
    let options = MailOptions { utf8, require_tls, ret, envid };
    Ok(MailCommand { reverse_path, size, body: body.unwrap_or_default(), auth, options })
}

/// What follows RCPT.
pub(super) fn rcpt(arguments: &str, dialect: Dialect) -> Result<RcptCommand, CommandError> {
    let text = after_keyword(arguments, "TO:")?;
    let (forward_path, rest) = ForwardPath::parse(text).map_err(|error| {
        if asks_to_route(text) { CommandError::Routing } else { CommandError::ForwardPath(error) }
    })?;
    if !dialect.utf8 && !text[..text.len() - rest.len()].is_ascii() {
        return Err(CommandError::ForwardPath(AddressError::NotAscii));
    }
    let (mut notify, mut orcpt) = (None, None);
    let syntax = CommandError::ForwardPath(AddressError::Syntax);
    for Parameter { keyword, value } in parameters(rest, dialect).ok_or(syntax)? {
        match keyword.to_ascii_uppercase().as_str() {
            "NOTIFY" => once(&mut notify, value.and_then(Notify::parse)),
            "ORCPT" => once(&mut orcpt, value.and_then(OriginalRecipient::parse)),
            _ => return Err(CommandError::Parameter),
        }?;
    }
    Ok(RcptCommand { forward_path, options: RcptOptions { notify, orcpt } })
}

/// What follows BDAT.
pub(super) fn bdat(arguments: &str) -> Result<Chunk, CommandError> {
    let mut words = arguments.split_ascii_whitespace();
    let size = digits(words.next().ok_or(CommandError::Chunk)?).ok_or(CommandError::Chunk)?;
    let size = size.parse().map_err(|_| CommandError::Chunk)?;
    let is_last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(CommandError::Chunk),
    };
    match words.next() {
        None => Ok(Chunk { size, is_last }),
        Some(_) => Err(CommandError::Chunk),
    }
}

/// What follows `FROM:` or `TO:`. Spaces behind the colon are not in the grammar, but common.
fn after_keyword<'a>(arguments: &'a str, keyword: &str) -> Result<&'a str, CommandError> {
    match arguments.split_at_checked(keyword.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(keyword) => Ok(rest.trim_start()),
        _ => Err(CommandError::Arguments),
    }
}

/// `KEYWORD` or `KEYWORD=value` (RFC 5321 section 4.1.2, `esmtp-param`).
struct Parameter<'a> {
    keyword: &'a str,
    value: Option<&'a str>,
}

/// Parameters behind a path: separated from it, or none. Without EHLO no keyword is known.
fn parameters(rest: &str, dialect: Dialect) -> Option<impl Iterator<Item = Parameter<'_>>> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    Some(rest.split_ascii_whitespace().map(move |word| {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        Parameter { keyword: if dialect.extended { keyword } else { "" }, value }
    }))
}

/// Takes a value that can be read and stands there once.
fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), CommandError> {
    match (slot.is_none(), value) {
        (true, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(CommandError::Arguments),
    }
}

fn no_value(value: Option<&str>) -> Option<()> {
    value.is_none().then_some(())
}

fn digits(text: &str) -> Option<&str> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    (digits_only && (1..=SIZE_DIGITS_MAX).contains(&text.len())).then_some(text)
}

/// RFC 1870 section 4: up to twenty digits. More than 64 bits hold is larger than any limit.
fn size_value(value: Option<&str>) -> Option<u64> {
    value.and_then(digits).map(|digits| digits.parse().unwrap_or(u64::MAX))
}

fn body_value(value: Option<&str>) -> Option<BodyType> {
    match value?.to_ascii_uppercase().as_str() {
        "7BIT" => Some(BodyType::SevenBit),
        "8BITMIME" => Some(BodyType::EightBitMime),
        "BINARYMIME" => Some(BodyType::BinaryMime),
        _ => None,
    }
}

/// RFC 4954 section 5: `<>` or a mailbox, as xtext.
fn auth_value(value: Option<&str>) -> Option<String> {
    let decoded = xtext::decode(value?)?;
    match decoded.as_str() {
        "<>" => Some(String::new()),
        "" => None,
        _ => Some(decoded),
    }
}

/// Whether something that is no address would have made an older server pass the message on:
/// `user%other`, `other!user`, `"user@other"` without a domain, `user@other@here`.
fn asks_to_route(path: &str) -> bool {
    let path = path.split('>').next().unwrap_or(path);
    path.contains(['%', '!', '"']) || path.matches('@').count() > 1
}
