//! Child processes that end with the test, and waiting for what they do.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long anything in these tests may take before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is ended when this is dropped, also while a panic unwinds.
#[derive(Debug)]
pub struct Process {
    child: Child,
    what: String,
}

impl Process {
    /// # Errors
    /// The program cannot be started: most often it is not installed.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::start_with_input(command.stdin(Stdio::null()))
    }

    /// As [`Self::start`], with the standard input that the command has.
    ///
    /// # Errors
    /// As there.
    pub fn start_with_input(command: &mut Command) -> Result<Self> {
        let what = format!("{command:?}");
        let child = command.spawn().with_context(|| {
            format!("starting {what}; `cargo xtask setup` installs what tests need")
        })?;
        Ok(Self { child, what })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// # Errors
    /// The process cannot be waited for.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to {}", self.what))
    }

    /// # Errors
    /// It is still running after [`PATIENCE`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        until(&self.what.clone(), || Ok(self.child.try_wait()?))
    }

    /// SIGTERM, then the exit status.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone_meanwhile = kill(self.pid(), Signal::SIGTERM);
            let started = Instant::now();
            while matches!(self.child.try_wait(), Ok(None)) {
                if started.elapsed() > Duration::from_secs(5) {
                    let _gone_meanwhile = self.child.kill();
                    let _reaped = self.child.wait();
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Asks again and again until there is an answer; gives up after [`PATIENCE`].
///
/// # Errors
/// The question itself failed, or there was no answer in time.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if started.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} in vain for: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to its end and returns what it wrote, whatever its exit status.
///
/// # Errors
/// It cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| {
        format!("starting {command:?}; `cargo xtask setup` installs what tests need")
    })?;
    Ok(Output {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// What a finished command left.
#[derive(Debug, Default)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// # Errors
    /// The exit status is not zero; everything it wrote is in the message.
    pub fn success(self) -> Result<Self> {
        if self.status.success() { Ok(self) } else { bail!("{self:#?}") }
    }
}
