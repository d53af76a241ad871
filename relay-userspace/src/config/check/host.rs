//! The sections about this host: its names and folders, its filter, certificate, DNS and log.

use super::Check;
use crate::config::{checked, file, parse};
use crate::edge::filter::SynLimit;

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
        let allow_generic = file.allow_generic.or(default.allow_generic).unwrap_or(false);
        let attach = self.attach(file, allow_generic);
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
        let deny_observed =
            self.texts("filter.deny_observed", &file.deny_observed, &None, parse::prefix);
        let syn_limit = self.syn_limit(file, &default);
        Some(checked::Filter {
            enforce: enforce?,
            attach: attach?,
            allow_generic,
            log_drops: file.log_drops.or(default.log_drops).unwrap_or(false),
            observe: file.observe.or(default.observe).unwrap_or(false),
            events_per_second: events_per_second?,
            pin_dir: pin_dir?,
            max_entries: max_entries?,
            allow: allow?,
            deny: deny?,
            deny_observed: deny_observed?,
            syn_limit: syn_limit?,
        })
    }

    /// One interface by `filter.interface`, or several by `[[filter.attach]]`.
    fn attach(&mut self, file: &file::Filter, generic: bool) -> Option<Vec<checked::Attach>> {
        let one = self.optional("filter.interface", &file.interface, parse::interface)?;
        if let (Some(_), Some(written), false) = (&one, &file.interface, file.attach.is_empty()) {
            let problem = "beside [[filter.attach]]; name this interface there too, or only here";
            self.fail("filter.interface", written, problem);
            return None;
        }
        let mut names: Vec<String> = Vec::new();
        let several = self.each(&file.attach, |check, of| {
            let key = "filter.attach.interface";
            let interface = check.text(key, &of.interface, &None, parse::interface)?;
            if let Some(written) = of.interface.as_ref().filter(|_| names.contains(&interface)) {
                check.fail(key, written, "named twice; name each interface once");
                return None;
            }
            names.push(interface.clone());
            let allow_generic = of.allow_generic.unwrap_or(generic);
            Some(checked::Attach { interface, allow_generic })
        })?;
        let one = one.map(|interface| checked::Attach { interface, allow_generic: generic });
        Some(one.into_iter().chain(several).collect())
    }

    /// `None` inside: without a limit.
    fn syn_limit(
        &mut self,
        file: &file::Filter,
        default: &file::Filter,
    ) -> Option<Option<SynLimit>> {
        // Beyond these the bucket, in thousandths of a connection, would not hold them.
        let per_s =
            self.number("filter.syn_rate", &file.syn_rate, &default.syn_rate, 0..=1_000_000);
        let burst =
            self.number("filter.syn_burst", &file.syn_burst, &default.syn_burst, 1..=1_000_000);
        let free = &default.syn_free;
        let free_per_s = self.number("filter.syn_free", &file.syn_free, free, 0..=1_000_000_000);
        let limit = SynLimit { per_s: per_s?, burst: burst?, free_per_s: free_per_s? };
        Some((limit.per_s > 0).then_some(limit))
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
