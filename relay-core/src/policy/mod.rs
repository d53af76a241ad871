//! What is let in, what is passed on, and why: pure functions from facts to a decision.
//!
//! One small file a question. The same functions serve the session and `postern explain`, so the
//! facts are plain values: nothing here looks anything up. The order of the questions is
//! [`connection`] at connect, [`sender`] at MAIL, then [`relay`] and [`recipient`] at RCPT.

use std::borrow::Cow;

use relay_common::entry::Reason;

pub mod audit;
pub mod connection;
pub mod domains;
pub mod recipient;
pub mod relay;
pub mod sender;

/// What was decided, by which rule, and the reason in words for log, `explain` and reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<T> {
    pub outcome: Outcome<T>,
    /// The rule that decided, as an administrator would look for it: `never-route 192.0.2.0/24`.
    pub rule: String,
    /// One sentence without the final stop.
    pub reason: String,
    /// What a refusal proves against its source; `None`: nothing that a ban may rest on.
    pub evidence: Option<Reason>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    Accept(T),
    Refuse(Refusal),
}

/// A negative reply: RFC 5321 section 4.2 code, RFC 3463 enhanced code, text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub enhanced: (u8, u16, u16),
    /// Printable ASCII in one line, short enough for RFC 5321 section 4.5.3.1.5.
    pub text: Cow<'static, str>,
    /// Whether the connection ends with the reply.
    pub close: bool,
}

impl Refusal {
    pub const fn new(code: u16, enhanced: (u8, u16, u16), text: &'static str) -> Self {
        Self { code, enhanced, text: Cow::Borrowed(text), close: false }
    }
}

impl<T> Decision<T> {
    pub fn accept(value: T, rule: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Accept(value),
            rule: rule.into(),
            reason: reason.into(),
            evidence: None,
        }
    }

    pub fn refuse(
        refusal: Refusal,
        rule: impl Into<String>,
        reason: impl Into<String>,
        evidence: Option<Reason>,
    ) -> Self {
        let outcome = Outcome::Refuse(refusal);
        Self { outcome, rule: rule.into(), reason: reason.into(), evidence }
    }

    pub fn accepted(&self) -> Option<&T> {
        match &self.outcome {
            Outcome::Accept(value) => Some(value),
            Outcome::Refuse(_) => None,
        }
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.outcome {
            Outcome::Accept(_) => None,
            Outcome::Refuse(refusal) => Some(refusal),
        }
    }
}
