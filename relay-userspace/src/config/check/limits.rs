//! The sections that bound things: bans, sessions, the queue.

use super::{Check, Text};
use crate::config::{checked, file, parse};

impl Check<'_> {
    pub(super) fn ban(&mut self, file: &file::Ban) -> Option<checked::Ban> {
        let default = std::mem::take(&mut self.default.ban);
        let threshold = self.number("ban.threshold", &file.threshold, &default.threshold, 1..=1000);
        let window = self.text("ban.window", &file.window, &default.window, parse::duration);
        let ladder = self.texts("ban.ladder", &file.ladder, &default.ladder, parse::duration);
        let scope = self.text("ban.scope", &file.scope, &default.scope, |text| {
            parse::one_of(text, &parse::SCOPES)
        });
        let max_live =
            self.number("ban.max_live", &file.max_live, &default.max_live, 0..=10_000_000);
        let max_new_per_minute = self.number(
            "ban.max_new_per_minute",
            &file.max_new_per_minute,
            &default.max_new_per_minute,
            0..=1_000_000,
        );
        if ladder.as_ref().is_some_and(Vec::is_empty) {
            self.missing("ban.ladder", "empty; write at least one duration");
            return None;
        }
        Some(checked::Ban {
            threshold: threshold?,
            window: window?,
            ladder: ladder?,
            scope: scope?,
            max_live: max_live?,
            max_new_per_minute: max_new_per_minute?,
            observe: file.observe.or(default.observe).unwrap_or(false),
            make_room: file.make_room.or(default.make_room).unwrap_or(false),
        })
    }

    pub(super) fn limits(&mut self, file: &file::Limits) -> Option<checked::Limits> {
        let d = std::mem::take(&mut self.default.limits);
        let size = self.text(
            "limits.message_size",
            &file.message_size,
            &d.message_size,
            parse::size_bytes,
        );
        // RFC 5321, section 4.5.3.1.8: at least 100 recipients have to be taken; fewer is the
        // administrator's own decision.
        let recipients =
            self.number("limits.recipients", &file.recipients, &d.recipients, 1..=50_000);
        let messages = self.number("limits.messages", &file.messages, &d.messages, 1..=1_000_000);
        let errors = self.number("limits.errors", &file.errors, &d.errors, 1..=1000);
        let connections =
            self.number("limits.connections", &file.connections, &d.connections, 1..=1_000_000);
        let per_source = self.number(
            "limits.connections_per_source",
            &file.connections_per_source,
            &d.connections_per_source,
            1..=1_000_000,
        );
        let reserve_percent =
            self.percent("limits.reserve", file.reserve.as_ref().or(d.reserve.as_ref()));
        let pregreet = self.text(
            "limits.pregreet_wait",
            &file.pregreet_wait,
            &d.pregreet_wait,
            parse::short_wait,
        );
        let mut wait = |key: &str, written: &Text, default: &Text| {
            self.text(key, written, default, parse::duration)
        };
        let command = wait("limits.command_timeout", &file.command_timeout, &d.command_timeout);
        let data = wait("limits.data_timeout", &file.data_timeout, &d.data_timeout);
        let session = wait("limits.session_timeout", &file.session_timeout, &d.session_timeout);
        Some(checked::Limits {
            message_size_bytes: size?,
            recipients: recipients?,
            messages: messages?,
            errors: errors?,
            connections: connections?,
            connections_per_source: per_source?,
            reserve_percent: reserve_percent?,
            pregreet_wait: pregreet?,
            command_timeout: command?,
            data_timeout: data?,
            session_timeout: session?,
        })
    }

    pub(super) fn queue(&mut self, file: &file::Queue) -> Option<checked::Queue> {
        let default = std::mem::take(&mut self.default.queue);
        let retry = self.texts("queue.retry", &file.retry, &default.retry, parse::duration);
        let expire = self.text("queue.expire", &file.expire, &default.expire, parse::duration);
        let min_free =
            self.text("queue.min_free", &file.min_free, &default.min_free, parse::size_bytes);
        let concurrency =
            self.number("queue.concurrency", &file.concurrency, &default.concurrency, 1..=10_000);
        let per_host = self.number(
            "queue.concurrency_per_host",
            &file.concurrency_per_host,
            &default.concurrency_per_host,
            1..=10_000,
        );
        if retry.as_ref().is_some_and(Vec::is_empty) {
            self.missing("queue.retry", "empty; write at least one duration");
            return None;
        }
        Some(checked::Queue {
            retry: retry?,
            expire: expire?,
            min_free_bytes: min_free?,
            concurrency: concurrency?,
            concurrency_per_host: per_host?,
        })
    }
}
