//! One daemon as a child of `postern run`: started, waited for, started again, stopped.

use std::{
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::{RunOptions, backoff::Backoff, notify::ReadySocket};
use crate::config::Config;

/// Loading a filter with many entries, or a queue after a crash, takes a moment.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// After SIGTERM a daemon ends its sessions; after this long it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How a daemon ends that was asked to: `postern run` ends then too, and starts nothing again.
pub const ASKED_TO_STOP: u8 = 10;
/// Set for daemons that `postern run` started: its process id.
const SUPERVISED: &str = "POSTERN_SUPERVISED";

#[derive(Debug)]
pub(super) struct Daemon {
    name: &'static str,
    arguments: Vec<String>,
    notify_path: PathBuf,
    child: Option<Child>,
    backoff: Backoff,
    /// Whether it has said that it serves, and not ended since.
    serves: Arc<AtomicBool>,
}

impl Daemon {
    pub(super) fn edge(config: &Config, options: &RunOptions) -> Self {
        let mut arguments = options.edge_arguments.clone();
        if !options.keep_filter {
            arguments.push("--detach-on-exit".into());
        }
        Self::new("edge", config, options, arguments)
    }

    pub(super) fn relay(config: &Config, options: &RunOptions) -> Self {
        Self::new("relay", config, options, options.relay_arguments.clone())
    }

    fn new(
        name: &'static str,
        config: &Config,
        options: &RunOptions,
        mut arguments: Vec<String>,
    ) -> Self {
        if let Some(file) = &options.config_file {
            arguments.insert(0, format!("--config={}", file.display()));
        }
        arguments.insert(0, name.into());
        let notify_path = config.server.run_dir.join(format!("{name}-ready.sock"));
        let serves = Arc::new(AtomicBool::new(false));
        Self { name, arguments, notify_path, child: None, backoff: Backoff::new(), serves }
    }

    pub(super) fn serves(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.serves)
    }

    /// Starts the daemon and waits until it says that it serves.
    ///
    /// # Errors
    /// It ended before that, or said nothing in time. It has told why on standard error.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let name = self.name;
        let ready = ReadySocket::bind(self.notify_path.clone())
            .with_context(|| format!("binding {}", self.notify_path.display()))?;
        let program = std::env::current_exe().context("finding this program's own file")?;
        let (variable, path) = ready.variable();
        let child = Command::new(program)
            .args(&self.arguments)
            .env(variable, path)
            .env(SUPERVISED, std::process::id().to_string())
            .stdin(Stdio::null())
            // Ctrl-C in a terminal goes to the foreground group: ours alone, so that the daemons
            // are ended in order and not all at once.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting the {name}"))?;
        let child = self.child.insert(child);
        tokio::select! {
            heard = timeout(READY_WITHIN, ready.ready()) => match heard {
                Ok(heard) => {
                    self.serves.store(heard.is_ok(), Ordering::Relaxed);
                    heard.with_context(|| format!("waiting for the {name}"))
                }
                Err(_) => bail!("the {name} did not come up within {READY_WITHIN:?}"),
            },
            status = child.wait() => {
                let status = status.with_context(|| format!("waiting for the {name}"))?;
                self.child = None;
                bail!("the {name} did not start ({})", describe(status));
            }
        }
    }

    /// Waits for the daemon to end, which it should not, and starts it again; returns when it was
    /// asked to end.
    pub(super) async fn keep_up(&mut self) {
        while !self.restart_when_ended().await {}
    }

    /// True when there is nothing to start again.
    async fn restart_when_ended(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            let ended = child.wait().await;
            self.serves.store(false, Ordering::Relaxed);
            match ended {
                Ok(status) if status.code() == Some(ASKED_TO_STOP.into()) => {
                    self.child = None;
                    return true;
                }
                Ok(status) => {
                    tracing::error!(daemon = self.name, status = describe(status), "daemon ended");
                }
                Err(error) => tracing::error!(daemon = self.name, %error, "cannot wait for daemon"),
            }
            self.child = None;
        }
        sleep(self.backoff.after_crash(Instant::now())).await;
        match self.start().await {
            Ok(()) => tracing::warn!(daemon = self.name, "daemon started again"),
            Err(error) => {
                tracing::error!(daemon = self.name, error = format!("{error:#}"), "cannot restart");
                self.stop().await;
            }
        }
        false
    }

    /// SIGKILL, so that it leaves what it has found: for an edge that has not begun to serve.
    pub(super) async fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Err(error) = child.kill().await {
            tracing::error!(daemon = self.name, %error, "cannot kill daemon");
        }
    }

    /// SIGTERM, and SIGKILL for one that does not listen.
    pub(super) async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGTERM) {
            tracing::warn!(daemon = self.name, %error, "cannot send SIGTERM");
        }
        match timeout(STOP_WITHIN, child.wait()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(daemon = self.name, %error, "cannot wait for daemon"),
            Err(_) => {
                tracing::error!(daemon = self.name, "did not end within {STOP_WITHIN:?}: killed");
                if let Err(error) = child.kill().await {
                    tracing::error!(daemon = self.name, %error, "cannot kill daemon");
                }
            }
        }
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".into(),
    }
}

/// Whether `postern run` started this process.
pub fn is_supervised() -> bool {
    std::env::var(SUPERVISED).is_ok_and(|pid| pid == nix::unistd::getppid().to_string())
}

/// Makes a daemon that `postern run` started end with it, even if that is killed: the relay by
/// SIGTERM, so that it finishes what it is doing; the edge by SIGKILL, which leaves the pinned
/// filter for the next start to adopt.
///
/// # Errors
/// The kernel refused (prctl(2), PR_SET_PDEATHSIG).
pub fn end_with_supervisor(signal: Signal) -> anyhow::Result<()> {
    let Ok(supervisor) = std::env::var(SUPERVISED) else { return Ok(()) };
    nix::sys::prctl::set_pdeathsig(signal).context("asking to end with `postern run`")?;
    // It may have ended before the kernel was asked.
    if nix::unistd::getppid().to_string() != supervisor {
        bail!("`postern run` ended while this daemon was starting");
    }
    Ok(())
}
