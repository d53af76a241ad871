//! One run of a client command: the daemons it speaks to, and where it reads and writes.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use thiserror::Error;

use super::args::{ClientCommand, Global};
use crate::config::{self, ConfigErrors};
use crate::control::api::Code;
use crate::control::client::{Client, ClientError};

/// Where the control sockets are unless something says otherwise: server.run_dir's default.
const RUN_DIR: &str = "/run/postern";

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
    pub run: Client,
    pub json: bool,
    /// Seconds since 1970, for "in 9m 58s".
    pub wall_s: u64,
    /// Where the administrator is logged in from.
    pub from: Option<IpAddr>,
    pub input: &'a mut dyn Read,
    /// Whether somebody can be asked.
    pub interactive: bool,
    /// Whether somebody reads along what is said of a long work.
    pub shows_progress: bool,
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
pub(super) fn with_terminal(global: &Global, command: ClientCommand) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("postern: {error}");
            return Exit::Failed;
        }
    };
    let sockets = match socket_dir_of(global) {
        Ok(sockets) => sockets,
        Err(errors) => {
            eprintln!("postern: {errors}");
            return Exit::Failed;
        }
    };
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut out = io::BufWriter::new(io::stdout());
    let mut session = Session {
        edge: Client::edge(&sockets),
        relay: Client::relay(&sockets),
        run: Client::run(&sockets),
        json: global.json,
        wall_s: wall.as_secs(),
        from: std::env::var("SSH_CONNECTION").ok().and_then(|text| ssh_client(&text)),
        input: &mut io::stdin(),
        interactive: io::IsTerminal::is_terminal(&io::stdin()),
        shows_progress: !global.json && io::IsTerminal::is_terminal(&io::stderr()),
        out: &mut out,
        err: &mut io::stderr(),
    };
    let mut done = runtime.block_on(super::execute(command, &mut session));
    if let Err(error) = out.flush()
        && done.is_ok()
    {
        done = Err(error.into());
    }
    match done {
        Ok(exit) => exit,
        // Whoever reads has read enough.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(failure) => {
            eprintln!("postern: {failure}");
            failure.exit()
        }
    }
}

/// Where the daemons are asked. The system's own configuration is not consulted: members of the
/// group need not be able to read it.
fn socket_dir_of(global: &Global) -> Result<PathBuf, ConfigErrors> {
    match (&global.socket_dir, &global.config) {
        (Some(folder), _) => Ok(folder.clone()),
        (None, Some(file)) => Ok(config::load(file)?.server.run_dir),
        (None, None) => Ok(RUN_DIR.into()),
    }
}

/// The client's address in sshd's SSH_CONNECTION: its first word.
fn ssh_client(text: &str) -> Option<IpAddr> {
    text.split_whitespace().next()?.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sockets_are_where_the_words_or_the_named_file_say() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        std::fs::write(&file, "[server]\nrun_dir = \"/run/other\"\n").unwrap();
        let of = |config: Option<&PathBuf>, socket_dir: Option<&str>| {
            let socket_dir = socket_dir.map(PathBuf::from);
            socket_dir_of(&Global { config: config.cloned(), socket_dir, json: false })
        };
        assert_eq!(of(Some(&file), None).unwrap(), PathBuf::from("/run/other"));
        assert_eq!(of(Some(&file), Some("/x")).unwrap(), PathBuf::from("/x"));
        assert_eq!(of(None, None).unwrap(), config::embedded().server.run_dir);
        assert!(of(Some(&dir.path().join("none.toml")), None).is_err());
    }
}
