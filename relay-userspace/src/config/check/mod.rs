//! From the file as written to values in range: all that is wrong is collected and told at once.
//!
//! A key that the file leaves out takes its value from `default.toml`, so the defaults stand in
//! one place.

mod feed;
mod host;
mod limits;
mod lmtp;
mod mail;
mod smtp;

use std::ops::{Range, RangeInclusive};

use toml::Spanned;

use super::{
    checked::Config,
    error::{ConfigError, Source},
    file::File,
    parse,
};

pub(super) struct Check<'a> {
    pub(super) source: Source<'a>,
    pub(super) default: File,
    pub(super) errors: Vec<ConfigError>,
    /// Where to look for what is missing: one of several tables of a name, or the key that asks
    /// for another.
    pub(super) place: Option<Range<usize>>,
}

type Text = Option<Spanned<String>>;
type Texts = Option<Vec<Spanned<String>>>;
type Number = Option<Spanned<i64>>;

impl Check<'_> {
    fn fail(&mut self, key: &str, at: &Spanned<String>, problem: impl Into<String>) {
        let error = self.source.error(Some(at.span()), key, at.get_ref(), problem);
        self.errors.push(error);
    }

    /// `None` where it is wrong, or neither written nor a default.
    fn percent(&mut self, key: &str, written: Option<&Spanned<toml::Value>>) -> Option<u8> {
        let written = written?;
        parse::percent(written.get_ref())
            .map_err(|problem| {
                let shown = Spanned::new(written.span(), written.get_ref().to_string());
                self.fail(key, &shown, problem);
            })
            .ok()
    }

    fn missing(&mut self, key: &str, problem: &str) {
        let error = self.source.error(self.place.clone(), key, "", problem);
        self.errors.push(error);
    }

    /// As [`Self::missing`], at the first of `keys` that is written.
    fn missing_beside(&mut self, keys: &[&Text], key: &str, problem: &str) {
        self.place = keys.iter().find_map(|key| key.as_ref()).map(Spanned::span);
        self.missing(key, problem);
        self.place = None;
    }

    /// Checks each of several tables of one name.
    fn each<T, C>(
        &mut self,
        tables: &[Spanned<T>],
        mut check: impl FnMut(&mut Self, &T) -> Option<C>,
    ) -> Option<Vec<C>> {
        let mut checked = Vec::new();
        for table in tables {
            self.place = Some(table.span());
            checked.push(check(self, table.get_ref()));
        }
        self.place = None;
        checked.into_iter().collect()
    }

    fn text<T>(
        &mut self,
        key: &str,
        written: &Text,
        default: &Text,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(value) = written.as_ref().or(default.as_ref()) else {
            self.missing(key, "missing; write it");
            return None;
        };
        parse(value.get_ref()).map_err(|problem| self.fail(key, value, problem)).ok()
    }

    /// As [`Self::text`], where an empty string means "none".
    fn optional<T>(
        &mut self,
        key: &str,
        written: &Text,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match written {
            Some(value) if !value.get_ref().is_empty() => {
                self.text(key, written, &None, parse).map(Some)
            }
            _ => Some(None),
        }
    }

    fn texts<T>(
        &mut self,
        key: &str,
        written: &Texts,
        default: &Texts,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let values = written.as_ref().or(default.as_ref()).cloned().unwrap_or_default();
        let parsed: Vec<Option<T>> = values
            .iter()
            .map(|value| {
                parse(value.get_ref()).map_err(|problem| self.fail(key, value, problem)).ok()
            })
            .collect();
        parsed.into_iter().collect()
    }

    fn number<N: TryFrom<i64>>(
        &mut self,
        key: &str,
        written: &Number,
        default: &Number,
        range: RangeInclusive<i64>,
    ) -> Option<N> {
        let value = written.as_ref().or(default.as_ref())?;
        if range.contains(value.get_ref())
            && let Ok(number) = N::try_from(*value.get_ref())
        {
            return Some(number);
        }
        let problem = format!("out of range; write {} to {}", range.start(), range.end());
        let shown = value.get_ref().to_string();
        self.errors.push(self.source.error(Some(value.span()), key, &shown, problem));
        None
    }

    pub(super) fn config(&mut self, file: &File) -> Option<Config> {
        let server = self.server(&file.server);
        let filter = self.filter(&file.filter);
        let listeners = self.listeners(&file.listener);
        let lmtp = self.lmtp(&file.lmtp, &file.listener);
        let tls = self.tls(&file.tls);
        let domains = self.domains(&file.domain);
        let relay = self.relay(&file.relay);
        let dns = self.dns(&file.dns);
        let dnsbl = self.dnsbls(&file.dnsbl);
        let feeds = self.feeds(&file.feed);
        let ban = self.ban(&file.ban);
        let smtp = self.smtp(&file.smtp);
        let limits = self.limits(&file.limits);
        let queue = self.queue(&file.queue);
        let log = self.log(&file.log);
        Some(Config {
            server: server?,
            filter: filter?,
            listeners: listeners?,
            lmtp: lmtp?,
            tls: tls?,
            domains: domains?,
            relay: relay?,
            dns: dns?,
            dnsbl: dnsbl?,
            feeds: feeds?,
            ban: ban?,
            smtp: smtp?,
            limits: limits?,
            queue: queue?,
            log: log?,
        })
    }
}
