//! Replies of the server: code, enhanced status code, text; and their encoding.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

/// Longest text of one reply line in octets, so that the line with code, enhanced code and CRLF
/// stays within the 512 of RFC 5321 section 4.5.3.1.5.
pub const TEXT_MAX: usize = 490;

/// An enhanced status code, `class.subject.detail` (RFC 3463).
pub type EnhancedCode = (u8, u16, u16);

/// One reply, of one line or several.
///
/// Text is cleaned where it is put in: whatever a client sent cannot break a line or smuggle a
/// control character through a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<EnhancedCode>,
    first: Cow<'static, str>,
    more: Vec<Cow<'static, str>>,
}

impl Reply {
    /// A reply with an enhanced status code.
    pub fn new(code: u16, enhanced: EnhancedCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self { enhanced: Some(enhanced), ..Self::plain(code, text) }
    }

    /// A reply without one: greetings, EHLO, 334 and 354 have none (RFC 2034 section 4).
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        debug_assert!((200..=559).contains(&code), "not a reply code: {code}");
        Self { code, enhanced: None, first: clean(text.into()), more: Vec::new() }
    }

    /// With one more line.
    #[must_use]
    pub fn line(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.more.push(clean(text.into()));
        self
    }

    /// The three-digit code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status code.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        self.enhanced
    }

    /// The texts, without codes; at least one.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.first).chain(&self.more).map(AsRef::as_ref)
    }

    /// Whether the code refuses, for now or for good.
    pub fn is_refusal(&self) -> bool {
        self.code >= 400
    }

    /// Appends the reply as it goes over the wire (RFC 5321 section 4.2.1). The enhanced code
    /// stands on every line (RFC 2034 section 4).
    pub fn encode(&self, out: &mut Vec<u8>) {
        write!(out, "{self}").expect("a Vec takes whatever is written");
    }
}

/// The wire form, CRLFs included.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, text) in self.lines().enumerate() {
            let separator = if index == self.more.len() { ' ' } else { '-' };
            write!(f, "{}{separator}", self.code)?;
            if let Some((class, subject, detail)) = self.enhanced {
                write!(f, "{class}.{subject}.{detail} ")?;
            }
            write!(f, "{text}\r\n")?;
        }
        Ok(())
    }
}

/// Printable ASCII within [`TEXT_MAX`]; anything else becomes `?`.
fn clean(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.len() <= TEXT_MAX && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text;
    }
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    Cow::Owned(text.chars().take(TEXT_MAX).map(printable).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_carries_both_codes() {
        let reply = Reply::new(550, (5, 7, 1), "No").line("Really").line("no");
        assert_eq!(reply.to_string(), "550-5.7.1 No\r\n550-5.7.1 Really\r\n550 5.7.1 no\r\n");
        assert_eq!(Reply::plain(334, "").to_string(), "334 \r\n");
    }

    #[test]
    fn text_cannot_break_out_of_its_line() {
        let reply = Reply::plain(250, "a\r\n250 b\u{e9}\0".to_owned());
        assert_eq!(reply.to_string(), "250 a??250 b??\r\n");
        let long = Reply::new(550, (5, 7, 100), "x".repeat(2000));
        assert!(long.to_string().len() <= 512);
    }
}
