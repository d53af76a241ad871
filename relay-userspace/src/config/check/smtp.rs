//! How SMTP is spoken, and what bounds a session.

use std::{ops::RangeInclusive, time::Duration};

use super::{Check, Number, Text};
use crate::config::{checked, file, parse};

/// A key of `[limits]`, as written and as it is by default.
type Written<'a, T> = (&'a str, &'a T, &'a T);

impl Check<'_> {
    pub(super) fn smtp(&mut self, file: &file::Smtp) -> Option<checked::Smtp> {
        let default = std::mem::take(&mut self.default.smtp);
        let bare_newlines =
            self.text("smtp.bare_newlines", &file.bare_newlines, &default.bare_newlines, |text| {
                parse::one_of(text, &parse::BARE_NEWLINES)
            });
        Some(checked::Smtp {
            bare_newlines: bare_newlines?,
            enforce_sync: file.enforce_sync.or(default.enforce_sync).unwrap_or(true),
            binarymime: file.binarymime.or(default.binarymime).unwrap_or(false),
            show_account: file.show_account.or(default.show_account).unwrap_or(false),
        })
    }

    pub(super) fn limits(&mut self, file: &file::Limits) -> Option<checked::Limits> {
        let d = std::mem::take(&mut self.default.limits);
        macro_rules! wait {
            ($name:ident) => {
                self.wait((concat!("limits.", stringify!($name)), &file.$name, &d.$name))
            };
        }
        let (handshake, command) = (wait!(handshake_timeout), wait!(command_timeout));
        let (data, session) = (wait!(data_timeout), wait!(session_timeout));
        let pregreet = self.text(
            "limits.pregreet_wait",
            &file.pregreet_wait,
            &d.pregreet_wait,
            parse::short_wait,
        );
        let reserve_percent =
            self.percent("limits.reserve", file.reserve.as_ref().or(d.reserve.as_ref()));
        macro_rules! count {
            ($name:ident, $range:expr) => {
                self.count((concat!("limits.", stringify!($name)), &file.$name, &d.$name), $range)
            };
        }
        // RFC 5321, section 4.5.3.1.8: at least 100 recipients have to be taken; fewer is the
        // administrator's own decision.
        let recipients: Option<usize> = count!(recipients, 1..=50_000);
        let messages: Option<usize> = count!(messages, 1..=1_000_000);
        let errors: Option<u32> = count!(errors, 1..=1000);
        let refusals: Option<u32> = count!(refusals, 1..=100_000);
        let auth_failures: Option<u32> = count!(auth_failures, 1..=1000);
        let idle_commands: Option<u32> = count!(idle_commands, 2..=100_000);
        let connections: Option<usize> = count!(connections, 1..=1_000_000);
        let per_source: Option<usize> = count!(connections_per_source, 1..=1_000_000);
        let header_lines: Option<usize> = count!(header_lines, 1..=1_000_000);
        let hops: Option<usize> = count!(hops, 1..=10_000);
        let mime_depth: Option<usize> = count!(mime_depth, 1..=10_000);
        let data_rate: Option<u64> = count!(data_rate, 1..=1_000_000_000);
        macro_rules! size {
            ($name:ident, $range:expr) => {
                self.size((concat!("limits.", stringify!($name)), &file.$name, &d.$name), $range)
            };
        }
        let message_size = size!(message_size, 1..=u64::MAX);
        let session_size = size!(session_size, 64 << 10..=u64::MAX);
        // RFC 5321, sections 4.5.3.1.4 and 4.5.3.1.6.
        let command_line = size!(command_line, 512..=64 << 10);
        let text_line = size!(text_line, 998..=1 << 30);
        let header_size = size!(header_size, 1 << 10..=1 << 30);
        Some(checked::Limits {
            message_size_bytes: message_size?,
            recipients: recipients?,
            messages: messages?,
            errors: errors?,
            refusals: refusals?,
            auth_failures: auth_failures?,
            idle_commands: idle_commands?,
            session_bytes: session_size?,
            command_line_bytes: usize::try_from(command_line?).ok()?,
            text_line_bytes: usize::try_from(text_line?).ok()?,
            header_bytes: usize::try_from(header_size?).ok()?,
            header_lines: header_lines?,
            hops: hops?,
            mime_depth: mime_depth?,
            connections: connections?,
            connections_per_source: per_source?,
            reserve_percent: reserve_percent?,
            pregreet_wait: pregreet?,
            handshake_timeout: handshake?,
            command_timeout: command?,
            data_timeout: data?,
            session_timeout: session?,
            data_rate: data_rate?,
        })
    }

    fn wait(&mut self, (key, written, default): Written<'_, Text>) -> Option<Duration> {
        self.text(key, written, default, parse::duration)
    }

    fn count<N: TryFrom<i64>>(
        &mut self,
        (key, written, default): Written<'_, Number>,
        range: RangeInclusive<i64>,
    ) -> Option<N> {
        self.number(key, written, default, range)
    }

    fn size(
        &mut self,
        (key, written, default): Written<'_, Text>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        self.text(key, written, default, |text| {
            let size = parse::size_bytes(text)?;
            match (range.contains(&size), *range.end()) {
                (true, _) => Ok(size),
                (false, u64::MAX) => Err(format!("too small; write at least {}B", range.start())),
                (false, end) => Err(format!("out of range; write {}B to {end}B", range.start())),
            }
        })
    }
}
