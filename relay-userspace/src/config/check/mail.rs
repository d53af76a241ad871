//! The sections about mail: who may hand it in, what is ours, where the rest goes, who is listed.

use std::path::PathBuf;

use relay_core::policy::{
    audit::{self, ListenerReach},
    relay::Sources,
};
use toml::Spanned;

use super::Check;
use crate::config::{
    checked::{self, Host, ListenerTls, Offer, OutboundTls},
    file, parse,
};

const DNSBL_REPLY: &str = "{address} is listed by {name}";

impl Check<'_> {
    pub(super) fn listeners(
        &mut self,
        written: &[Spanned<file::Listener>],
    ) -> Option<Vec<checked::Listener>> {
        let default = std::mem::take(&mut self.default.listener);
        let written = if written.is_empty() { &default[..] } else { written };
        let listeners =
            self.each(written, |check, listener| check.listener(listener, default[0].get_ref()))?;
        let mut seen = std::collections::HashSet::new();
        let mut addresses = std::collections::HashSet::new();
        for (listener, file) in listeners.iter().zip(written.iter().map(Spanned::get_ref)) {
            if let Some(name) = file.name.as_ref().filter(|_| !seen.insert(&listener.name)) {
                self.fail("listener.name", name, "used twice; give each listener its own name");
            }
            for (address, at) in listener.addresses.iter().zip(file.address.iter().flatten()) {
                if address.port() != 0 && !addresses.insert(*address) {
                    self.fail("listener.address", at, "used twice; remove one");
                }
            }
        }
        Some(listeners)
    }

    pub(super) fn listener(
        &mut self,
        file: &file::Listener,
        default: &file::Listener,
    ) -> Option<checked::Listener> {
        let name = self.text("listener.name", &file.name, &None, parse::not_empty);
        let addresses = self.texts("listener.address", &file.address, &None, parse::listen_address);
        let offer = |text: &str| parse::one_of(text, &parse::OFFERS);
        let tls = self.text("listener.tls", &file.tls, &default.tls, |text| {
            parse::one_of(text, &parse::LISTENER_TLS)
        });
        let auth = self.text("listener.auth", &file.auth, &default.auth, offer);
        let relay_for = self.texts("listener.relay_for", &file.relay_for, &None, parse::prefix);
        let proxy_protocol =
            self.texts("listener.proxy_protocol", &file.proxy_protocol, &None, parse::upstream);
        let xclient = self.texts("listener.xclient", &file.xclient, &None, parse::upstream);
        let xforward = self.texts("listener.xforward", &file.xforward, &None, parse::upstream);
        let open_relay = self.optional("listener.open_relay", &file.open_relay, |text| {
            if text == parse::OPEN_RELAY_WANTED {
                Ok(())
            } else {
                Err(format!(
                    "only {:?} has a meaning here; remove the line",
                    parse::OPEN_RELAY_WANTED
                ))
            }
        });
        if addresses.as_ref().is_some_and(Vec::is_empty) {
            self.missing("listener.address", "missing; write for example address = [\"[::]:25\"]");
            return None;
        }
        if let (Some(ListenerTls::Off), Some(Offer::Offer | Offer::Require), Some(at)) =
            (tls, auth, &file.auth)
        {
            self.fail(
                "listener.auth",
                at,
                "passwords are taken only inside TLS; set tls = \"require\", \"offer\" or \"implicit\"",
            );
        }
        let listener = checked::Listener {
            name: name?,
            addresses: addresses?,
            tls: tls?,
            auth: auth?,
            dnsbl: file.dnsbl.or(default.dnsbl).unwrap_or(true),
            relay_for: relay_for?,
            proxy_protocol: proxy_protocol?,
            xclient: xclient?,
            xforward: xforward?,
            open_relay: open_relay?.is_some(),
        };
        self.refuse_open_relay(&listener, file)?;
        Some(listener)
    }

    /// No mistake opens the relay silently (R1).
    fn refuse_open_relay(
        &mut self,
        listener: &checked::Listener,
        file: &file::Listener,
    ) -> Option<()> {
        let grants = crate::relay::state::grants(listener);
        let bound: Vec<_> = listener.addresses.iter().map(std::net::SocketAddr::ip).collect();
        let admits = Sources::everyone();
        let named = !listener.proxy_protocol.is_empty() || !listener.xclient.is_empty();
        let reach = ListenerReach { bound: &bound, named, admits: &admits, grants: &grants };
        let phrase = listener.open_relay.then_some(parse::OPEN_RELAY_WANTED);
        let Some(finding) = audit::open_relay(&reach, phrase) else { return Some(()) };
        let Some(at) = file.relay_for.iter().flatten().next() else { return Some(()) };
        let remedy = format!(
            "{finding}; name your own networks, or write open_relay = {:?}",
            parse::OPEN_RELAY_WANTED
        );
        self.fail("listener.relay_for", at, remedy);
        None
    }

    pub(super) fn domains(
        &mut self,
        written: &[Spanned<file::Domain>],
    ) -> Option<Vec<checked::Domain>> {
        let domains = self.each(written, Self::domain)?;
        let mut seen = std::collections::HashSet::new();
        for (domain, file) in domains.iter().zip(written.iter().map(Spanned::get_ref)) {
            if let Some(name) = file.name.as_ref().filter(|_| !seen.insert(&domain.pattern)) {
                self.fail("domain.name", name, "listed twice; remove one");
            }
        }
        Some(domains)
    }

    pub(super) fn domain(&mut self, file: &file::Domain) -> Option<checked::Domain> {
        let pattern = self.text("domain.name", &file.name, &None, parse::domain_pattern);
        let route = self
            .text("domain.route", &file.route, &None, |text| parse::one_of(text, &parse::ROUTES));
        let hosts = self.texts("domain.host", &file.host, &None, parse::inside_host);
        if let (Some(checked::DomainRoute::Inbound), Some([]), Some(name)) =
            (route, hosts.as_deref(), &file.name)
        {
            self.fail(
                "domain.name",
                name,
                "inbound without a host; add host = [\"192.0.2.25:25\"]",
            );
            return None;
        }
        let lmtp = match &file.protocol {
            Some(_) => self.text("domain.protocol", &file.protocol, &None, |text| {
                parse::one_of(text, &parse::PROTOCOLS)
            }),
            None => Some(false),
        }?;
        if !lmtp
            && let Some(host) = file.host.iter().flatten().find(|it| it.get_ref().starts_with('/'))
        {
            self.fail("domain.host", host, "a Unix socket speaks LMTP; add protocol = \"lmtp\"");
            return None;
        }
        Some(checked::Domain { pattern: pattern?, route: route?, hosts: hosts?, lmtp })
    }

    pub(super) fn relay(&mut self, file: &file::Relay) -> Option<checked::Relay> {
        let default = std::mem::take(&mut self.default.relay);
        let smart_host: Option<Option<Host>> =
            self.optional("relay.smart_host", &file.smart_host, parse::host);
        let tls = self.text(
            "relay.smart_host_tls",
            &file.smart_host_tls,
            &default.smart_host_tls,
            |text| parse::one_of(text, &parse::OUTBOUND_TLS),
        );
        let account =
            self.optional("relay.smart_host_account", &file.smart_host_account, parse::not_empty);
        let password = self.optional(
            "relay.smart_host_password_file",
            &file.smart_host_password_file,
            parse::absolute_path,
        );
        let never_route = self.texts("relay.never_route", &file.never_route, &None, parse::prefix);
        let exempt = self.texts(
            "relay.dnsbl_exempt_recipients",
            &file.dnsbl_exempt_recipients,
            &default.dnsbl_exempt_recipients,
            parse::recipient_pattern,
        );
        let smart_host_account: Option<(String, PathBuf)> = match (account?, password?) {
            (Some(account), Some(file)) => Some((account, file)),
            (None, None) => None,
            _ => {
                self.missing_beside(
                    &[&file.smart_host_account, &file.smart_host_password_file],
                    "relay.smart_host_account",
                    "an account and a password file go together; write both or neither",
                );
                return None;
            }
        };
        if let (Some(_), Some(OutboundTls::Off | OutboundTls::Offer)) = (&smart_host_account, tls) {
            self.missing_beside(
                &[&file.smart_host_tls, &file.smart_host_account],
                "relay.smart_host_tls",
                "a password goes only over checked TLS; write smart_host_tls = \"verify\"",
            );
            return None;
        }
        Some(checked::Relay {
            smart_host: smart_host?,
            smart_host_tls: tls?,
            smart_host_account,
            never_route: never_route?,
            dnsbl_exempt_recipients: exempt?,
        })
    }

    pub(super) fn dnsbls(
        &mut self,
        written: &[Spanned<file::Dnsbl>],
    ) -> Option<Vec<checked::Dnsbl>> {
        self.each(written, Self::dnsbl)
    }

    pub(super) fn dnsbl(&mut self, file: &file::Dnsbl) -> Option<checked::Dnsbl> {
        let zone = self.text("dnsbl.zone", &file.zone, &None, parse::domain_name);
        let name = match &file.name {
            Some(_) => self.text("dnsbl.name", &file.name, &None, parse::not_empty),
            None => zone.clone(),
        };
        let listed = self.texts("dnsbl.listed", &file.listed, &None, parse::answer_range);
        let policy = self.texts("dnsbl.policy", &file.policy, &None, parse::answer_range);
        if let Some([]) = file.listed.as_deref() {
            self.missing("dnsbl.listed", "empty; name an answer, or remove the line");
            return None;
        }
        let reply = match &file.reply {
            Some(_) => self.text("dnsbl.reply", &file.reply, &None, parse::not_empty),
            None => Some(DNSBL_REPLY.to_owned()),
        };
        Some(checked::Dnsbl {
            name: name?,
            zone: zone?,
            listed: listed.map(|listed| file.listed.as_ref().map(|_| listed))?,
            policy: policy.map(|policy| file.policy.as_ref().map(|_| policy))?,
            ipv6: file.ipv6,
            reply: reply?,
        })
    }
}
