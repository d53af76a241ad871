//! Postern and its peers on one gateway, each with an address of its own, and one sink behind all
//! of them.

use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::group::Group;
use crate::packaged::{CERTIFICATE, EXIM, KEY, OPENSMTPD, Packaged, make_certificate};
use crate::postfix::Postfix;
use crate::process::{Process, output, until};
use crate::world::{GATEWAY, INSIDE_HOST, World};

const ROUNDS: usize = 3;

/// Where many clients come from, each from an address of its own.
pub(super) const MANY_SOURCES: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// As many connections as any part opens, and its mail without the limits of a stranger.
const CONFIG: &str = r#"
[[listener]]
name = "mx"
address = ["203.0.113.1:25"]

[[domain]]
name = "inside.test"
route = "inbound"
host = ["10.0.0.25:25"]

[[domain]]
name = "refused.test"
route = "reject"

[limits]
connections = {connections}
connections_per_source = {connections}
reserve = "0%"
messages = 1000000
message_size = "60MiB"
"#;

/// Whose figures they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Postern,
    Postfix,
    OpenSmtpd,
    Exim,
    /// No server that anybody would use: [`super::bare`].
    Bare,
}

impl Side {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postern => "Postern",
            Self::Postfix => "Postfix",
            Self::OpenSmtpd => OPENSMTPD.name,
            Self::Exim => EXIM.name,
            Self::Bare => super::bare::NAME,
        }
    }
}

/// A server under measurement.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) side: Side,
    pub(super) address: Ipv4Addr,
    /// What it says it is.
    pub(super) version: String,
    // In the order in which they have to go.
    pub(super) kept: Kept,
    pub(super) group: Group,
}

#[derive(Debug)]
pub(super) enum Kept {
    /// By [`World`].
    Postern,
    Postfix {
        _server: Postfix,
    },
    Packaged {
        _server: Process,
    },
    Bare {
        _server: Process,
    },
}

/// All of them. Whoever cannot be had is named in `missing`.
#[derive(Debug)]
pub(super) struct Scene {
    // In the order in which they have to go.
    pub(super) servers: Vec<Server>,
    /// Why another is not measured, or not everywhere.
    missing: Mutex<Vec<String>>,
    pub(super) quick: bool,
    /// That Postern takes at once.
    pub(super) connections: usize,
    pub(super) sink: Sink,
    pub(super) world: World,
}

impl Scene {
    /// # Errors
    /// Postern or Postfix cannot be started.
    pub(super) fn new(quick: bool) -> Result<Self> {
        let mut world = World::new()?;
        let sink = Sink::start(&world)?;
        make_certificate(&world)?;
        world.out.route("10.0.0.0/24", GATEWAY)?;
        // Whatever is in there is one of the client's own addresses.
        let many = format!("{MANY_SOURCES}/15");
        world.out.run("ip", &["route", "add", "local", &many, "dev", "lo"])?;
        // Clients at full speed are no attack. And one that finds a queue of the server full comes again,
        // where with a cookie it would take the connection for open and wait for ever.
        for (key, value) in [("tcp_max_syn_backlog", "4096"), ("tcp_syncookies", "0")] {
            world.gw.run("sysctl", &["-qw", &format!("net.ipv4.{key}={value}")])?;
        }
        let connections = super::idle::connections()?;
        world.start(&CONFIG.replace("{connections}", &connections.to_string()))?;
        let group = Group::new("postern")?;
        group.take(world.postern.as_ref().context("Postern is not running")?.pid())?;
        let version = world.cli_ok(&["--version"])?;
        let postern = Server {
            side: Side::Postern,
            address: GATEWAY.parse()?,
            version: version.trim().to_owned(),
            kept: Kept::Postern,
            group,
        };
        let (servers, missing) = (vec![postern], Mutex::default());
        let mut scene = Self { servers, missing, quick, connections, sink, world };
        let postfix = scene.postfix(Ipv4Addr::new(10, 0, 0, 1)).context("starting Postfix")?;
        scene.servers.push(postfix);
        for (side, packaged, host) in [(Side::OpenSmtpd, &OPENSMTPD, 2), (Side::Exim, &EXIM, 3)] {
            match scene.packaged(side, packaged, Ipv4Addr::new(10, 0, 0, host)) {
                Ok(server) => scene.servers.push(server),
                Err(error) => scene.miss(format!("{} is not measured: {error:#}", side.name())),
            }
        }
        for server in &scene.servers {
            server.group.idle()?;
        }
        Ok(scene)
    }

    /// Measures one server. A peer out of a package that does not get through is left out, and said.
    ///
    /// # Errors
    /// Postern or Postfix did not get through.
    pub(super) fn attempt<T>(
        &self,
        server: &Server,
        what: &str,
        measure: impl FnOnce() -> Result<T>,
    ) -> Result<Option<T>> {
        let name = server.side.name();
        match measure() {
            Ok(measured) => Ok(Some(measured)),
            Err(error) if matches!(server.kept, Kept::Packaged { .. }) => {
                self.miss(format!("{name} is not measured here ({what}): {error:#}"));
                Ok(None)
            }
            Err(error) => Err(error.context(format!("{name}, {what}"))),
        }
    }

    fn miss(&self, line: String) {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    pub(super) fn missing(&self) -> Vec<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who is here, and what each says it is.
    pub(super) fn versions(&self) -> Vec<(&'static str, String)> {
        self.servers.iter().map(|server| (server.side.name(), server.version.clone())).collect()
    }

    /// What the servers have to say when something goes wrong.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let logs = ["log", "postfix/log", "OpenSMTPD/log", "Exim/log"];
        logs.into_iter().map(|log| self.world.path(log)).collect()
    }

    /// How often everything is measured.
    pub(super) fn rounds(&self) -> usize {
        if self.quick { 1 } else { ROUNDS }
    }

    /// A number of sessions or messages, or a tenth of it.
    pub(super) fn scaled(&self, number: u32) -> u32 {
        if self.quick { number.div_ceil(10) } else { number }
    }

    pub(super) fn relay(&self) -> Result<Pid> {
        self.world.daemon_pid("relay")
    }

    /// On the inner side of the gateway: the same kernel, the same wires.
    fn postfix(&self, address: Ipv4Addr) -> Result<Server> {
        let world = &self.world;
        let (certificate, key) = (world.path(CERTIFICATE), world.path(KEY));
        let settings = [
            ("relayhost", format!("[{INSIDE_HOST}]")),
            ("relay_domains", "inside.test".to_owned()),
            ("relay_domains_reject_code", "550".to_owned()),
            ("smtpd_relay_restrictions", "reject_unauth_destination".to_owned()),
            ("mynetworks", "127.0.0.1".to_owned()),
            ("default_process_limit", "300".to_owned()),
            ("smtpd_client_connection_count_limit", "0".to_owned()),
            ("smtpd_tls_security_level", "may".to_owned()),
            ("smtpd_tls_cert_file", certificate.display().to_string()),
            ("smtpd_tls_key_file", key.display().to_string()),
        ];
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let folder = world.path("postfix");
        let server = Postfix::start(&world.gw, &folder, &address.to_string(), &settings)?;
        let master = fs::read_to_string(folder.join("queue/pid/master.pid"))?;
        let group = Group::new("postfix")?;
        group.take(Pid::from_raw(master.trim().parse()?))?;
        let mut version = std::process::Command::new("postconf");
        let version = output(version.args(["-d", "-h", "mail_version"]))?.stdout;
        Ok(Server {
            side: Side::Postfix,
            address,
            version: version.trim().to_owned(),
            kept: Kept::Postfix { _server: server },
            group,
        })
    }

    fn packaged(&self, side: Side, packaged: &Packaged, address: Ipv4Addr) -> Result<Server> {
        let world = &self.world;
        world.gw.addr("eth1", &format!("{address}/24"))?;
        let folder = world.path(packaged.name);
        let server = packaged.start(&world.gw, &folder, &address.to_string(), INSIDE_HOST)?;
        let group = Group::new(packaged.name)?;
        group.take(server.pid())?;
        let version = packaged.version();
        Ok(Server { side, address, version, kept: Kept::Packaged { _server: server }, group })
    }
}

/// The next hop of all of them, which counts what came.
#[derive(Debug)]
pub(super) struct Sink {
    messages: Arc<AtomicU64>,
    _process: Process,
}

impl Sink {
    fn start(world: &World) -> Result<Self> {
        let (mut counts, writer) = std::io::pipe()?;
        let mut sink = world.inside.command("smtp-sink");
        sink.args(["-c", "-u", "nobody", &format!("{INSIDE_HOST}:25"), "1000"]).stdout(writer);
        let process = Process::start(sink.stderr(Stdio::inherit()))?;
        // Its end of the pipe must be the only one.
        drop(sink);
        let messages = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&messages);
        std::thread::spawn(move || {
            let (mut bytes, mut line) = ([0; 4096], Vec::new());
            while let Ok(length @ 1..) = counts.read(&mut bytes) {
                for &byte in &bytes[..length] {
                    match (byte, count_in(&line)) {
                        (b'\r', Some(count)) => {
                            counted.store(count, Ordering::Relaxed);
                            line.clear();
                        }
                        (b'\r', None) => line.clear(),
                        _ => line.push(byte),
                    }
                }
            }
        });
        until("smtp-sink to listen", || {
            Ok(world.inside.run("ss", &["-Hltn", "sport = :25"])?.contains(":25").then_some(()))
        })?;
        Ok(Self { messages, _process: process })
    }

    /// Messages taken since its start.
    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}

/// `sess=1 quit=1 mesg=17`: the last number.
fn count_in(line: &[u8]) -> Option<u64> {
    let (_, count) = std::str::from_utf8(line).ok()?.rsplit_once("mesg=")?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smtp_sinks_counter_is_read() {
        assert_eq!(count_in(b"sess=1 quit=1 mesg=17"), Some(17));
        assert_eq!(count_in(b"smtp-sink: warning"), None);
    }
}
