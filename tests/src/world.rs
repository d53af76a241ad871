//! The world of an end-to-end test: the internet, the gateway, and the inside, each a namespace.
//!
//! ```text
//! out (203.0.113.10 honest, .66, .77, .99; .254 the router)
//!   │ eth0
//! gw  (203.0.113.1; 10.0.0.1)      postern run --interface eth0
//!   │ eth1
//! inside (10.0.0.25 mail host, .26 smart host, .53 DNS)
//! ```

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{
    dns::NameServer,
    netns::{Netns, veth},
    process::{Output, PATIENCE, Process, output, until},
};

pub const GATEWAY: &str = "203.0.113.1";
pub const GATEWAY_V6: &str = "2001:db8:1::1";
pub const HONEST: &str = "203.0.113.10";
pub const HONEST_V6: &str = "2001:db8:1::10";
pub const LISTED: &str = "203.0.113.66";
pub const LISTED_V6: &str = "2001:db8:1:66::66";
pub const NEVER_ROUTE: &str = "203.0.113.77";
pub const OTHER: &str = "203.0.113.99";
pub const OTHER_V6: &str = "2001:db8:1:99::99";
/// Where feeds are published, under the name feeds.test.
pub const FEEDS: &str = "203.0.113.254";
pub const INSIDE_HOST: &str = "10.0.0.25";
pub const SMART_HOST: &str = "10.0.0.26";
pub const DNS: &str = "10.0.0.53";

/// Room in each list, by [`CONFIG`].
pub const MAX_ENTRIES: u32 = 65_536;

/// What every test's configuration begins with.
const CONFIG: &str = r#"
[server]
hostname = "mx.gateway.test"
state_dir = "{folder}/state"
run_dir = "{folder}/run"

[filter]
interface = "eth0"
pin_dir = "{pins}"
max_entries = {max_entries}

[[domain]]
name = "inside.test"
route = "inbound"
host = ["10.0.0.25:25"]

[dns]
servers = ["10.0.0.53"]
timeout = "2s"
"#;

/// Namespaces, DNS and folders of one test, and Postern when it is started. All of it goes away
/// with this, also while a panic unwinds.
#[derive(Debug)]
pub struct World {
    // In the order in which they have to go.
    pub postern: Option<Process>,
    pub dns: NameServer,
    pub out: Netns,
    pub gw: Netns,
    pub inside: Netns,
    pub pins: PathBuf,
    folder: TempDir,
}

impl World {
    /// # Errors
    /// Not root, or something the tests need is missing; the sentence says what.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (gw, out, inside) = (Netns::new("gw")?, Netns::new("out")?, Netns::new("inside")?);
        veth(&gw, "eth0", &out, "eth0")?;
        veth(&gw, "eth1", &inside, "eth0")?;
        gw.addr("eth0", "203.0.113.1/24")?;
        gw.addr("eth0", "2001:db8:1::1/48")?;
        gw.addr("eth1", "10.0.0.1/24")?;
        for address in ["254", "10", "66", "77", "99"] {
            out.addr("eth0", &format!("203.0.113.{address}/24"))?;
        }
        for address in [HONEST_V6, LISTED_V6, OTHER_V6] {
            out.addr("eth0", &format!("{address}/48"))?;
        }
        for address in [INSIDE_HOST, SMART_HOST, DNS] {
            inside.addr("eth0", &format!("{address}/24"))?;
        }
        gw.route("default", "203.0.113.254")?;
        inside.route("default", "10.0.0.1")?;
        let folder = tempfile::Builder::new().prefix("postern-test-").tempdir()?;
        // The relay's user has to get through to its own folder below.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let names = [
            ("honest.test", HONEST.parse()?),
            ("honest6.test", HONEST_V6.parse()?),
            ("feeds.test", FEEDS.parse()?),
        ];
        let dns = NameServer::start(&inside, DNS.parse()?, folder.path().join("dns"), &names)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins =
            PathBuf::from(format!("/sys/fs/bpf/postern-test-{}-{number}", std::process::id()));
        Ok(Self { postern: None, dns, out, gw, inside, pins, folder })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// Writes the configuration: the world's own part, and `extra` over it, key by key.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_config(&self, extra: &str) -> Result<PathBuf> {
        let text = CONFIG
            .replace("{folder}", &self.folder.path().display().to_string())
            .replace("{pins}", &self.pins.display().to_string())
            .replace("{max_entries}", &MAX_ENTRIES.to_string());
        let mut config: toml::Table = toml::from_str(&text)?;
        for (name, value) in toml::from_str::<toml::Table>(extra)? {
            match (config.get_mut(&name), value) {
                (Some(toml::Value::Table(section)), toml::Value::Table(more)) => {
                    section.extend(more)
                }
                (_, value) => drop(config.insert(name, value)),
            }
        }
        let file = self.path("postern.toml");
        fs::write(&file, toml::to_string(&config)?)?;
        Ok(file)
    }

    /// A `postern` command on the gateway.
    pub fn postern(&self, arguments: &[&str]) -> Command {
        let mut command = self.gw.command(&postern_binary().display().to_string());
        command.args(arguments);
        command
    }

    /// Starts `postern run` with this configuration and waits until it serves.
    ///
    /// # Errors
    /// It ends before that.
    pub fn start(&mut self, extra_config: &str) -> Result<()> {
        self.start_with(extra_config, &[])
    }

    /// As [`Self::start`], with more arguments.
    ///
    /// # Errors
    /// It ends before that.
    pub fn start_with(&mut self, extra_config: &str, arguments: &[&str]) -> Result<()> {
        let config = self.write_config(extra_config)?;
        let notify = self.path("notify.sock");
        let _first_start = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify)?;
        socket.set_read_timeout(Some(std::time::Duration::from_millis(20)))?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log"))?;
        let mut command = self.postern(&["run", "--config"]);
        command.arg(config).args(arguments).env("NOTIFY_SOCKET", &notify);
        let mut process = Process::start(command.stdout(log.try_clone()?).stderr(log))?;
        let started = std::time::Instant::now();
        let mut word = [0; 64];
        while !matches!(socket.recv(&mut word), Ok(length) if word[..length] == *b"READY=1") {
            if let Some(status) = process.try_wait()? {
                bail!("postern run ended with {status}:\n{}", self.log());
            }
            if started.elapsed() > PATIENCE {
                bail!("postern run did not get ready:\n{}", self.log());
            }
        }
        self.postern = Some(process);
        Ok(())
    }

    /// All that Postern has logged and printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Runs the CLI against this world's sockets.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        let sockets = self.socket_dir();
        output(self.postern(&["--socket-dir"]).arg(sockets).args(arguments))
    }

    /// Runs the CLI and expects exit status 0; returns standard output.
    ///
    /// # Errors
    /// Another exit status.
    pub fn cli_ok(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.cli(arguments)?.success()?.stdout)
    }

    /// Runs the CLI with `--json`.
    ///
    /// # Errors
    /// Another exit status than 0, or no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut with_json = vec!["--json"];
        with_json.extend(arguments);
        let text = self.cli_ok(&with_json)?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// Waits until the filter itself, not only the lists, gives this verdict on a connection from
    /// there to port 25; returns all that `explain` says then. The edge may be away meanwhile.
    ///
    /// # Errors
    /// It does not, in time.
    pub fn until_verdict(&self, address: &str, verdict: &str) -> Result<serde_json::Value> {
        let mut last = Output::default();
        let found = until(&format!("{address} to be {verdict}"), || {
            last = self.cli(&["--json", "explain", address])?;
            let told: serde_json::Value = serde_json::from_str(&last.stdout).unwrap_or_default();
            Ok((told["edge"]["verdict"] == verdict).then_some(told))
        });
        found.with_context(|| format!("explain says {last:#?}"))
    }

    /// Ends Postern in order.
    ///
    /// # Errors
    /// It does not end, or not with status 0.
    pub fn stop(&mut self) -> Result<()> {
        let Some(process) = self.postern.take() else { bail!("Postern is not running") };
        let status = process.stop()?;
        if status.success() {
            Ok(())
        } else {
            bail!("postern run ended with {status}:\n{}", self.log())
        }
    }

    /// The process id of a daemon that `postern run` started.
    ///
    /// # Errors
    /// There is none.
    pub fn daemon_pid(&self, name: &str) -> Result<nix::unistd::Pid> {
        let run = self.postern.as_ref().context("Postern is not running")?.pid();
        let children = fs::read_to_string(format!("/proc/{run}/task/{run}/children"))?;
        for pid in children.split_whitespace() {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split(|&b| b == 0).nth(1) == Some(name.as_bytes()) {
                return Ok(nix::unistd::Pid::from_raw(pid.parse()?));
            }
        }
        bail!("postern run has no child {name}")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what Postern logged ---\n{}", self.log());
        }
        drop(self.postern.take());
        let _never_pinned = remove_pins(&self.pins);
    }
}

/// bpffs has no recursive removal of its own: the pins, then their folders.
fn remove_pins(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { remove_pins(&path)? } else { fs::remove_file(path)? }
    }
    fs::remove_dir(folder)
}

/// The program under test: `POSTERN_BIN`, as `cargo xtask test` sets it, or the one beside the
/// test's own.
pub fn postern_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("POSTERN_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a process has a program");
    let profile = test.ancestors().find(|folder| folder.join("postern").is_file());
    profile.expect("`cargo xtask test` builds postern before it starts the tests").join("postern")
}
