//! The sections about this host: its names and folders, its filter, certificate, DNS and log.

use super::Check;
use crate::config::{checked, file, parse};

impl Check<'_> {
    pub(super) fn server(&mut self, file: &file::Server) -> Option<checked::Server> {
        let default = std::mem::take(&mut self.default.server);
        let hostname = self.optional("server.hostname", &file.hostname, parse::domain_name);
        let state_dir = self.text(
            "server.state_dir",
            &file.state_dir,
            &default.state_dir,
            parse::absolute_path,
        );
        let run_dir =
            self.text("server.run_dir", &file.run_dir, &default.run_dir, parse::absolute_path);
        let user = self.text("server.user", &file.user, &default.user, parse::not_empty);
        let group = self.text("server.group", &file.group, &default.group, parse::not_empty);
        Some(checked::Server {
            hostname: hostname?.unwrap_or_else(machine_name),
            state_dir: state_dir?,
            run_dir: run_dir?,
            user: user?,
            group: group?,
        })
    }

    pub(super) fn filter(&mut self, file: &file::Filter) -> Option<checked::Filter> {
        let default = std::mem::take(&mut self.default.filter);
        let enforce = self.text("filter.enforce", &file.enforce, &default.enforce, |text| {
            parse::one_of(text, &parse::ENFORCE)
        });
        let interface = self.optional("filter.interface", &file.interface, parse::interface);
        let pin_dir =
            self.text("filter.pin_dir", &file.pin_dir, &default.pin_dir, parse::absolute_path);
        let max_entries = self.number(
            "filter.max_entries",
            &file.max_entries,
            &default.max_entries,
            1..=16_000_000,
        );
        let events_per_second = self.number(
            "filter.events_per_second",
            &file.events_per_second,
            &default.events_per_second,
            0..=100_000,
        );
        let allow = self.texts("filter.allow", &file.allow, &None, parse::prefix);
        let deny = self.texts("filter.deny", &file.deny, &None, parse::prefix);
        Some(checked::Filter {
            enforce: enforce?,
            interface: interface?,
            allow_generic: file.allow_generic.or(default.allow_generic).unwrap_or(false),
            log_drops: file.log_drops.or(default.log_drops).unwrap_or(false),
            events_per_second: events_per_second?,
            pin_dir: pin_dir?,
            max_entries: max_entries?,
            allow: allow?,
            deny: deny?,
        })
    }

    pub(super) fn tls(&mut self, file: &file::Tls) -> Option<checked::TlsFiles> {
        let certificate =
            self.optional("tls.certificate", &file.certificate, parse::absolute_path)?;
        let key = self.optional("tls.key", &file.key, parse::absolute_path)?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Some(checked::TlsFiles { files: Some((certificate, key)) })
            }
            (None, None) => Some(checked::TlsFiles { files: None }),
            (Some(_), None) => {
                let beside = [&file.certificate];
                self.missing_beside(&beside, "tls.key", "missing; a certificate needs its key");
                None
            }
            (None, Some(_)) => {
                let beside = [&file.key];
                let problem = "missing; a key needs its certificate";
                self.missing_beside(&beside, "tls.certificate", problem);
                None
            }
        }
    }

    pub(super) fn dns(&mut self, file: &file::Dns) -> Option<checked::Dns> {
        let default = std::mem::take(&mut self.default.dns);
        let servers = self.texts("dns.servers", &file.servers, &None, parse::dns_server);
        let timeout = self.text("dns.timeout", &file.timeout, &default.timeout, parse::duration);
        Some(checked::Dns { servers: servers?, timeout: timeout? })
    }

    pub(super) fn log(&mut self, file: &file::Log) -> Option<checked::Log> {
        let default = std::mem::take(&mut self.default.log);
        let format = self.text("log.format", &file.format, &default.format, |text| {
            parse::one_of(text, &parse::LOG_FORMATS)
        });
        let level = self.text("log.level", &file.level, &default.level, |text| {
            parse::one_of(text, &parse::LOG_LEVELS)
        });
        Some(checked::Log { format: format?, level: level? })
    }
}

fn machine_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .and_then(|name| parse::domain_name(&name).ok())
        .unwrap_or_else(|| "localhost".into())
}
