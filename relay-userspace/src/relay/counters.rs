//! What the relay counts since its start: shown by `postern stats`.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// One counter for each thing that happens.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        impl Counters {
            /// All of them by name.
            pub fn by_name(&self) -> BTreeMap<String, u64> {
                BTreeMap::from([$((stringify!($name).to_owned(), self.$name.get()),)+])
            }
        }
    };
}

counters! {
    /// Connections that were taken.
    connections,
    /// Connections turned away for their number, whatever the limit: 421.
    connections_crowded,
    /// Of those, because no place at all was left.
    crowded_server,
    /// Of those, strangers to whom the reserve is closed.
    crowded_reserved,
    /// Of those, because their source had as many as it may.
    crowded_source,
    /// Sessions of strangers that said nothing, and ended early to make room.
    sessions_hurried,
    /// Connections of balancers without a good PROXY header in time.
    proxy_headers_refused,
    /// Connections turned away because their source is denied: 554.
    connections_denied,
    /// Clients that spoke before the banner: 554.
    early_talkers,
    /// Clients that began a TLS handshake where plain text was due: 554.
    tls_on_plain_port,
    /// Clients that spoke HTTP: 554.
    http_clients,
    /// Clients that sent binary junk for a first command: 554.
    binary_clients,
    /// Clients that spoke before the banner as a balancer does, and are none that is listed: 554.
    proxy_headers_unlisted,
    /// Clients that did not wait for a reply where they had to: 554.
    pipelining_unauthorised,
    /// Clients that sent plain text behind STARTTLS: 554.
    plaintext_behind_starttls,
    /// Sessions that ended since a deadline passed: 421.
    sessions_timed_out,
    /// Sessions that ended by a limit: errors, refusals, octets, a line without end: 421.
    sessions_over_limit,
    /// Bare CRs and LFs in commands and messages, refused or normalised.
    bare_newlines,
    /// Sessions that began TLS.
    tls_sessions,
    /// TLS handshakes that failed.
    tls_failures,
    /// Passwords that were right.
    auth_successes,
    /// Passwords that were wrong.
    auth_failures,
    /// Recipients accepted for our own domains.
    recipients_inbound,
    /// Recipients accepted to be passed on.
    recipients_relayed,
    /// Recipients refused because relaying is prohibited.
    recipients_relaying_refused,
    /// Recipients refused because their sender is on a block list.
    recipients_listed_refused,
    /// Recipients refused for another reason.
    recipients_other_refused,
    /// Messages acknowledged with 250.
    messages_accepted,
    /// Messages that could not be stored: 4xx.
    messages_not_stored,
    /// Messages that were begun and dropped: refused for their content, or broken off.
    messages_dropped,
    /// Pieces of evidence against sources.
    evidence,
    /// Feeds fetched whole.
    feeds_fetched,
    /// Feeds of which the server said that nothing has changed.
    feeds_unchanged,
    /// Feeds that could not be fetched.
    feeds_failed,
    /// Bans that the edge made.
    bans,
    /// Bans that the edge refused: protected, or too many.
    bans_refused,
    /// Bans that could not be brought to the edge.
    bans_lost,
    /// Questions to the edge that it did not answer.
    edge_unreachable,
    /// Sessions that ended by a defect of this program.
    defects,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
