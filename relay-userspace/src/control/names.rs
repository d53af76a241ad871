//! How scopes, reasons and lists are written in JSON and on the command line.

use relay_common::entry::{List, Reason, Scope};
use serde::{Deserialize, Deserializer, Serializer};

/// The names of scopes in JSON; a union without a name is a number in hexadecimal.
pub mod scope_name {
    use super::*;

    pub fn serialize<S: Serializer>(scope: &Scope, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(scope)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Scope, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map_err(serde::de::Error::custom)
    }

    /// A scope by its name, or by the number that `Scope` prints for a set without one.
    pub fn parse(text: &str) -> Result<Scope, String> {
        let bits = text.strip_prefix("0x").and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let known = bits.map(Scope::from_bits).filter(|scope| *scope != Scope::NONE);
        Scope::from_name(text).or(known).ok_or_else(|| {
            format!("{text:?} is no scope; it is one of mx, submission, smtp, tcp, all")
        })
    }
}

/// The names of reasons in JSON.
pub mod reason_name {
    use super::*;

    pub fn serialize<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(reason)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
        let text = String::deserialize(deserializer)?;
        Reason::from_name(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no reason")))
    }
}

/// The names of lists in JSON.
pub mod list_name {
    use super::*;

    pub fn serialize<S: Serializer>(list: &List, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(list)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<List, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no list")))
    }

    pub fn parse(text: &str) -> Option<List> {
        List::ALL.into_iter().find(|list| list.name() == text)
    }
}
