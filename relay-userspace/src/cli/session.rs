//! One run of a client command: the daemons it speaks to, and where it reads and writes.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use thiserror::Error;

use super::args::{ClientCommand, Global};
use crate::control::api::Code;
use crate::control::client::{Client, ClientError};

/// The documented exit codes; a wrong command line is 2, by clap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    Nothing = 3,
    NotReachable = 4,
    NoPermission = 5,
}

/// Why a command could not be carried out.
#[derive(Debug, Error)]
pub enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Said(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Failure {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) => exit_of(error),
            Self::Said(_) | Self::Io(_) => Exit::Failed,
        }
    }
}

/// The exit code for a daemon that gave no good answer.
pub fn exit_of(error: &ClientError) -> Exit {
    match error {
        ClientError::NotReachable { .. } | ClientError::TimedOut { .. } => Exit::NotReachable,
        ClientError::NoPermission { .. } => Exit::NoPermission,
        ClientError::Problem(problem) if problem.code == Code::NotFound => Exit::Nothing,
        ClientError::Problem(_) | ClientError::Garbled { .. } => Exit::Failed,
    }
}

/// What a command works with. A test gives its own.
pub struct Session<'a> {
    pub edge: Client,
    pub relay: Client,
    pub json: bool,
    /// Seconds since 1970, for "in 9m 58s".
    pub wall_s: u64,
    /// Where the administrator is logged in from.
    pub from: Option<IpAddr>,
    pub input: &'a mut dyn Read,
    /// Whether somebody can be asked.
    pub interactive: bool,
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Session<'_> {
    /// Prints an answer: as JSON when that is wanted, else by `human`.
    pub fn show<T: Serialize>(
        &mut self,
        answer: &T,
        human: impl FnOnce(&T, &mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        if self.json {
            serde_json::to_writer(&mut *self.out, answer).map_err(io::Error::from)?;
            writeln!(self.out)?;
        } else {
            human(answer, self.out)?;
        }
        Ok(())
    }
}

/// Runs a command at the process's terminal.
pub(super) fn with_terminal(global: &Global, command: ClientCommand) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("postern: {error}");
            return ExitCode::from(Exit::Failed as u8);
        }
    };
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut out = io::BufWriter::new(io::stdout());
    let mut session = Session {
        edge: Client::edge(&global.socket_dir),
        relay: Client::relay(&global.socket_dir),
        json: global.json,
        wall_s: wall.as_secs(),
        from: std::env::var("SSH_CONNECTION").ok().and_then(|text| ssh_client(&text)),
        input: &mut io::stdin(),
        interactive: io::IsTerminal::is_terminal(&io::stdin()),
        out: &mut out,
        err: &mut io::stderr(),
    };
    let mut done = runtime.block_on(super::execute(command, &mut session));
    if let Err(error) = out.flush()
        && done.is_ok()
    {
        done = Err(error.into());
    }
    let exit = match done {
        Ok(exit) => exit,
        // Whoever reads has read enough.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(failure) => {
            eprintln!("postern: {failure}");
            failure.exit()
        }
    };
    ExitCode::from(exit as u8)
}

/// The client's address in sshd's SSH_CONNECTION: its first word.
fn ssh_client(text: &str) -> Option<IpAddr> {
    text.split_whitespace().next()?.split('%').next()?.parse().ok()
}
