//! The configuration as it is understood, in the form of the file: every default filled in, every
//! value in its canonical form. What it prints can be read again and means the same.

use std::{fmt::Display, time::Duration};

use relay_core::feed::Format;
use toml::{Table, Value};

use super::{checked::*, parse};

/// The whole configuration as a TOML table.
pub fn show(config: &Config) -> Table {
    let mut table = Table::new();
    let mut section = |name: &str, fields: Vec<(&str, Value)>| {
        table.insert(name.to_owned(), Value::Table(fields_of(fields)));
    };
    section("server", server(&config.server));
    section("filter", filter(&config.filter));
    section("lmtp", lmtp(config.lmtp.as_ref()));
    section("tls", tls(&config.tls));
    section("relay", relay(&config.relay));
    section("dns", dns(&config.dns));
    section("ban", ban(&config.ban));
    section("smtp", smtp(&config.smtp));
    section("limits", limits(&config.limits));
    section("queue", queue(&config.queue));
    section("log", log(&config.log));
    let tables = |tables: Vec<Vec<(&str, Value)>>| {
        Value::Array(tables.into_iter().map(|fields| Value::Table(fields_of(fields))).collect())
    };
    table.insert("listener".to_owned(), tables(config.listeners.iter().map(listener).collect()));
    if !config.domains.is_empty() {
        table.insert("domain".to_owned(), tables(config.domains.iter().map(domain).collect()));
    }
    if !config.dnsbl.is_empty() {
        table.insert("dnsbl".to_owned(), tables(config.dnsbl.iter().map(dnsbl).collect()));
    }
    if !config.feeds.is_empty() {
        table.insert("feed".to_owned(), tables(config.feeds.iter().map(feed).collect()));
    }
    table
}

type Fields = Vec<(&'static str, Value)>;

fn fields_of(fields: Vec<(&str, Value)>) -> Table {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(value: impl Display) -> Value {
    Value::String(value.to_string())
}

fn texts<T: Display>(values: impl IntoIterator<Item = T>) -> Value {
    Value::Array(values.into_iter().map(text).collect())
}

fn number(value: impl TryInto<i64>) -> Value {
    // Every number of the configuration is checked against a range far below this.
    Value::Integer(value.try_into().unwrap_or(i64::MAX))
}

fn duration(value: Duration) -> Value {
    text(humantime::format_duration(value))
}

fn size(bytes: u64) -> Value {
    text(format_args!("{bytes}B"))
}

fn name_of<T: Copy + PartialEq>(value: T, known: &[(&'static str, T)]) -> Value {
    let found = known.iter().find(|(_, each)| *each == value);
    text(found.map_or("", |(name, _)| name))
}

fn server(server: &Server) -> Fields {
    vec![
        ("hostname", text(&server.hostname)),
        ("state_dir", text(server.state_dir.display())),
        ("run_dir", text(server.run_dir.display())),
        ("user", text(&server.user)),
        ("group", text(&server.group)),
    ]
}

fn filter(filter: &Filter) -> Fields {
    let attach = filter.attach.iter().map(|of| {
        Value::Table(fields_of(vec![
            ("interface", text(&of.interface)),
            ("allow_generic", Value::Boolean(of.allow_generic)),
        ]))
    });
    let limit = filter.syn_limit.unwrap_or_default();
    vec![
        ("enforce", name_of(filter.enforce, &parse::ENFORCE)),
        ("attach", Value::Array(attach.collect())),
        ("allow_generic", Value::Boolean(filter.allow_generic)),
        ("log_drops", Value::Boolean(filter.log_drops)),
        ("observe", Value::Boolean(filter.observe)),
        ("events_per_second", number(filter.events_per_second)),
        ("pin_dir", text(filter.pin_dir.display())),
        ("max_entries", number(filter.max_entries)),
        ("allow", texts(&filter.allow)),
        ("deny", texts(&filter.deny)),
        ("deny_observed", texts(&filter.deny_observed)),
        ("syn_rate", number(limit.per_s)),
        ("syn_burst", number(limit.burst.max(1))),
        ("syn_free", number(limit.free_per_s)),
    ]
}

fn tls(tls: &TlsFiles) -> Fields {
    let path = |path: Option<&std::path::PathBuf>| {
        text(path.map(|path| path.display().to_string()).unwrap_or_default())
    };
    vec![
        ("certificate", path(tls.files.as_ref().map(|(certificate, _)| certificate))),
        ("key", path(tls.files.as_ref().map(|(_, key)| key))),
    ]
}

fn relay(relay: &Relay) -> Fields {
    let account = relay.smart_host_account.as_ref();
    let password_file = account.map(|(_, file)| file.display().to_string());
    vec![
        (
            "smart_host",
            text(relay.smart_host.as_ref().map(ToString::to_string).unwrap_or_default()),
        ),
        ("smart_host_tls", name_of(relay.smart_host_tls, &parse::OUTBOUND_TLS)),
        ("smart_host_account", text(account.map(|(name, _)| name.as_str()).unwrap_or_default())),
        ("smart_host_password_file", text(password_file.unwrap_or_default())),
        ("never_route", texts(&relay.never_route)),
        ("dnsbl_exempt_recipients", texts(&relay.dnsbl_exempt_recipients)),
    ]
}

fn dns(dns: &Dns) -> Fields {
    vec![("servers", texts(&dns.servers)), ("timeout", duration(dns.timeout))]
}

fn ban(ban: &Ban) -> Fields {
    let ladder = ban.ladder.iter().map(|&step| humantime::format_duration(step));
    vec![
        ("threshold", number(ban.threshold)),
        ("window", duration(ban.window)),
        ("ladder", texts(ladder)),
        ("scope", text(ban.scope)),
        ("max_live", number(ban.max_live)),
        ("max_new_per_minute", number(ban.max_new_per_minute)),
        ("observe", Value::Boolean(ban.observe)),
        ("make_room", Value::Boolean(ban.make_room)),
    ]
}

fn smtp(smtp: &Smtp) -> Fields {
    vec![
        ("bare_newlines", name_of(smtp.bare_newlines, &parse::BARE_NEWLINES)),
        ("enforce_sync", Value::Boolean(smtp.enforce_sync)),
        ("binarymime", Value::Boolean(smtp.binarymime)),
        ("show_account", Value::Boolean(smtp.show_account)),
    ]
}

fn limits(limits: &Limits) -> Fields {
    vec![
        ("message_size", size(limits.message_size_bytes)),
        ("recipients", number(limits.recipients as u64)),
        ("messages", number(limits.messages as u64)),
        ("errors", number(limits.errors)),
        ("refusals", number(limits.refusals)),
        ("auth_failures", number(limits.auth_failures)),
        ("idle_commands", number(limits.idle_commands)),
        ("session_size", size(limits.session_bytes)),
        ("command_line", size(limits.command_line_bytes as u64)),
        ("text_line", size(limits.text_line_bytes as u64)),
        ("header_size", size(limits.header_bytes as u64)),
        ("header_lines", number(limits.header_lines as u64)),
        ("hops", number(limits.hops as u64)),
        ("mime_depth", number(limits.mime_depth as u64)),
        ("connections", number(limits.connections as u64)),
        ("connections_per_source", number(limits.connections_per_source as u64)),
        ("reserve", text(format_args!("{}%", limits.reserve_percent))),
        ("pregreet_wait", duration(limits.pregreet_wait)),
        ("handshake_timeout", duration(limits.handshake_timeout)),
        ("command_timeout", duration(limits.command_timeout)),
        ("data_timeout", duration(limits.data_timeout)),
        ("session_timeout", duration(limits.session_timeout)),
        ("data_rate", number(limits.data_rate)),
    ]
}

fn queue(queue: &Queue) -> Fields {
    let retry = queue.retry.iter().map(|&pause| humantime::format_duration(pause));
    vec![
        ("retry", texts(retry)),
        ("expire", duration(queue.expire)),
        ("min_free", size(queue.min_free_bytes)),
        ("concurrency", number(queue.concurrency as u64)),
        ("concurrency_per_host", number(queue.concurrency_per_host as u64)),
    ]
}

fn log(log: &Log) -> Fields {
    vec![
        ("format", name_of(log.format, &parse::LOG_FORMATS)),
        ("level", name_of(log.level, &parse::LOG_LEVELS)),
    ]
}

fn listener(listener: &Listener) -> Fields {
    let open_relay = if listener.open_relay { parse::OPEN_RELAY_WANTED } else { "" };
    vec![
        ("name", text(&listener.name)),
        ("address", texts(&listener.addresses)),
        ("tls", name_of(listener.tls, &parse::LISTENER_TLS)),
        ("auth", name_of(listener.auth, &parse::OFFERS)),
        ("dnsbl", Value::Boolean(listener.dnsbl)),
        ("relay_for", texts(&listener.relay_for)),
        ("proxy_protocol", texts(&listener.proxy_protocol)),
        ("xclient", texts(&listener.xclient)),
        ("xforward", texts(&listener.xforward)),
        ("open_relay", text(open_relay)),
    ]
}

fn lmtp(lmtp: Option<&Lmtp>) -> Fields {
    let Some(lmtp) = lmtp else { return vec![("socket", text(""))] };
    vec![
        ("socket", text(lmtp.socket.display())),
        ("mode", text(format_args!("{:04o}", lmtp.mode))),
        ("group", text(lmtp.group.as_deref().unwrap_or_default())),
        ("relay_for_users", texts(&lmtp.relay_for_users)),
    ]
}

fn domain(domain: &Domain) -> Fields {
    vec![
        ("name", text(&domain.pattern)),
        ("route", name_of(domain.route, &parse::ROUTES)),
        ("host", texts(&domain.hosts)),
        ("protocol", name_of(domain.lmtp, &parse::PROTOCOLS)),
    ]
}

fn dnsbl(list: &Dnsbl) -> Fields {
    let mut fields = vec![
        ("name", text(&list.name)),
        // A customer's key may be part of the zone: it is needed to read this again.
        ("zone", text(&list.zone)),
        ("reply", text(&list.reply)),
    ];
    let ranges = |ranges: &[AnswerRange]| {
        texts(ranges.iter().map(|(first, last)| format!("{first}-{last}")))
    };
    fields.extend(list.listed.as_deref().map(|listed| ("listed", ranges(listed))));
    fields.extend(list.policy.as_deref().map(|policy| ("policy", ranges(policy))));
    fields.extend(list.ipv6.map(|ipv6| ("ipv6", Value::Boolean(ipv6))));
    fields
}

fn feed(feed: &Feed) -> Fields {
    let ca_file = feed.ca_file.as_ref().map(|file| file.display().to_string());
    let (format, column) = match feed.format {
        Format::Cidr => ("cidr", None),
        Format::DropJson => ("drop-json", None),
        Format::Csv { column } => ("csv", Some(column)),
    };
    let mut fields = vec![
        ("name", text(&feed.name)),
        ("source", text(&feed.source)),
        ("ca_file", text(ca_file.unwrap_or_default())),
        ("format", text(format)),
        ("list", text(feed.list)),
        ("scope", text(feed.scope)),
        ("refresh", duration(feed.refresh)),
        ("lease", duration(feed.lease)),
        ("observe", Value::Boolean(feed.observe)),
        ("max_size", size(feed.size_bytes_max)),
        ("max_entries", number(feed.limits.entries_max)),
        ("min_entries", number(feed.limits.entries_min)),
        ("max_shrink", text(format_args!("{}%", feed.limits.shrink_max_percent))),
    ];
    fields.extend(column.map(|column| ("column", number(column))));
    fields
}
