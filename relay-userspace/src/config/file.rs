//! The configuration file as written: a mirror of its TOML, keys and all, unchecked.
//!
//! What each key means stands in `default.toml`, the one place for it; `checked.rs` turns this
//! into values the rest of the program can trust.

use serde::Deserialize;
use toml::Spanned;

type Text = Option<Spanned<String>>;
type Texts = Option<Vec<Spanned<String>>>;
type Number = Option<Spanned<i64>>;
/// A number, or a text such as `50%`.
type Percent = Option<Spanned<toml::Value>>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) server: Server,
    pub(super) filter: Filter,
    pub(super) listener: Vec<Spanned<Listener>>,
    pub(super) lmtp: Lmtp,
    pub(super) tls: Tls,
    pub(super) domain: Vec<Spanned<Domain>>,
    pub(super) relay: Relay,
    pub(super) dns: Dns,
    pub(super) dnsbl: Vec<Spanned<Dnsbl>>,
    pub(super) feed: Vec<Spanned<Feed>>,
    pub(super) ban: Ban,
    pub(super) smtp: Smtp,
    pub(super) limits: Limits,
    pub(super) queue: Queue,
    pub(super) log: Log,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    pub(super) hostname: Text,
    pub(super) state_dir: Text,
    pub(super) run_dir: Text,
    pub(super) user: Text,
    pub(super) group: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    pub(super) enforce: Text,
    pub(super) interface: Text,
    pub(super) allow_generic: Option<bool>,
    pub(super) attach: Vec<Spanned<Attach>>,
    pub(super) log_drops: Option<bool>,
    pub(super) observe: Option<bool>,
    pub(super) events_per_second: Number,
    pub(super) pin_dir: Text,
    pub(super) max_entries: Number,
    pub(super) allow: Texts,
    pub(super) deny: Texts,
    pub(super) deny_observed: Texts,
    pub(super) syn_rate: Number,
    pub(super) syn_burst: Number,
    pub(super) syn_free: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Attach {
    pub(super) interface: Text,
    pub(super) allow_generic: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listener {
    pub(super) name: Text,
    pub(super) address: Texts,
    pub(super) tls: Text,
    pub(super) auth: Text,
    pub(super) dnsbl: Option<bool>,
    pub(super) relay_for: Texts,
    pub(super) proxy_protocol: Texts,
    pub(super) xclient: Texts,
    pub(super) xforward: Texts,
    pub(super) open_relay: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Lmtp {
    pub(super) socket: Text,
    pub(super) mode: Text,
    pub(super) group: Text,
    pub(super) relay_for_users: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    pub(super) certificate: Text,
    pub(super) key: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Domain {
    pub(super) name: Text,
    pub(super) route: Text,
    pub(super) host: Texts,
    pub(super) protocol: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Relay {
    pub(super) smart_host: Text,
    pub(super) smart_host_tls: Text,
    pub(super) smart_host_account: Text,
    pub(super) smart_host_password_file: Text,
    pub(super) never_route: Texts,
    pub(super) dnsbl_exempt_recipients: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Dns {
    pub(super) servers: Texts,
    pub(super) timeout: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Dnsbl {
    pub(super) name: Text,
    pub(super) zone: Text,
    pub(super) listed: Texts,
    pub(super) policy: Texts,
    pub(super) ipv6: Option<bool>,
    pub(super) reply: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Feed {
    pub(super) name: Text,
    pub(super) source: Text,
    pub(super) ca_file: Text,
    pub(super) format: Text,
    pub(super) column: Number,
    pub(super) list: Text,
    pub(super) scope: Text,
    pub(super) refresh: Text,
    pub(super) lease: Text,
    pub(super) observe: Option<bool>,
    pub(super) max_size: Text,
    pub(super) max_entries: Number,
    pub(super) min_entries: Number,
    pub(super) max_shrink: Percent,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Ban {
    pub(super) threshold: Number,
    pub(super) window: Text,
    pub(super) ladder: Texts,
    pub(super) scope: Text,
    pub(super) max_live: Number,
    pub(super) max_new_per_minute: Number,
    pub(super) observe: Option<bool>,
    pub(super) make_room: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Smtp {
    pub(super) bare_newlines: Text,
    pub(super) enforce_sync: Option<bool>,
    pub(super) binarymime: Option<bool>,
    pub(super) show_account: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) message_size: Text,
    pub(super) recipients: Number,
    pub(super) messages: Number,
    pub(super) errors: Number,
    pub(super) refusals: Number,
    pub(super) auth_failures: Number,
    pub(super) idle_commands: Number,
    pub(super) session_size: Text,
    pub(super) command_line: Text,
    pub(super) text_line: Text,
    pub(super) header_size: Text,
    pub(super) header_lines: Number,
    pub(super) hops: Number,
    pub(super) mime_depth: Number,
    pub(super) connections: Number,
    pub(super) connections_per_source: Number,
    pub(super) reserve: Percent,
    pub(super) pregreet_wait: Text,
    pub(super) handshake_timeout: Text,
    pub(super) command_timeout: Text,
    pub(super) data_timeout: Text,
    pub(super) session_timeout: Text,
    pub(super) data_rate: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Queue {
    pub(super) retry: Texts,
    pub(super) expire: Text,
    pub(super) min_free: Text,
    pub(super) concurrency: Number,
    pub(super) concurrency_per_host: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    pub(super) format: Text,
    pub(super) level: Text,
}
