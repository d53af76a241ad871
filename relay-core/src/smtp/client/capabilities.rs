//! What a server offers in its EHLO reply (RFC 5321 section 4.1.1.1).

use super::response::Response;

/// The extensions that matter to the sender. All absent after HELO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 1870. `Some(0)`: offered without a fixed limit.
    pub size: Option<u64>,
    /// RFC 6531.
    pub smtp_utf8: bool,
    /// BDAT, and BODY=BINARYMIME for it (RFC 3030).
    pub binary_mime: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 8689.
    pub require_tls: bool,
    /// AUTH with the mechanism PLAIN (RFC 4954, RFC 4616).
    pub auth_plain: bool,
}

impl Capabilities {
    /// Reads the lines behind the first, which is the greeting.
    pub fn of(response: &Response) -> Self {
        let mut found = Self::default();
        let (mut chunking, mut binary) = (false, false);
        for line in response.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => found.pipelining = true,
                "STARTTLS" => found.starttls = true,
                "8BITMIME" => found.eight_bit_mime = true,
                "SMTPUTF8" => found.smtp_utf8 = true,
                "CHUNKING" => chunking = true,
                "BINARYMIME" => binary = true,
                "DSN" => found.dsn = true,
                "REQUIRETLS" => found.require_tls = true,
                "SIZE" => {
                    found.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0));
                }
                "AUTH" => found.auth_plain |= words.any(|word| word.eq_ignore_ascii_case("PLAIN")),
                _ => {}
            }
        }
        found.binary_mime = chunking && binary;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_read_in_any_case_and_the_greeting_is_none() {
        let lines = [
            "STARTTLS says hello",
            "pipelining",
            "Size 1000",
            "AUTH LOGIN plain",
            "X",
            "dsn",
            "SMTPUTF8",
            "BINARYMIME",
        ];
        let response =
            Response { code: 250, enhanced: None, lines: lines.map(str::to_owned).to_vec() };
        // BINARYMIME without CHUNKING is of no use.
        let expected = Capabilities {
            pipelining: true,
            size: Some(1000),
            auth_plain: true,
            dsn: true,
            smtp_utf8: true,
            ..Capabilities::default()
        };
        assert_eq!(Capabilities::of(&response), expected);
    }
}
