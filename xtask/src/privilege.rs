//! Becoming root for what needs it: directly, by sudo, or not at all.
//!
//! Builds always run as the calling user; only package installation, the gateway itself and the
//! tests of the kernel and of namespaces become root.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::workspace::find_program;

/// What the calling user can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// Already root.
    Root,
    /// Root by sudo: without a password, or there is a terminal to ask for it.
    Sudo,
    /// Neither.
    None,
}

/// Variables that reach a command run as root; sudo would drop them.
const PASSED_ON: [&str; 5] = ["POSTERN_BIN", "RUST_BACKTRACE", "RUST_LOG", "NO_COLOR", "TERM"];

impl Privilege {
    /// Looks at the effective user and at sudo.
    pub(crate) fn detect() -> Self {
        if effective_uid() == Some(0) {
            return Self::Root;
        }
        if find_program("sudo").is_none() {
            return Self::None;
        }
        let without_password = Command::new("sudo")
            .args(["-n", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if without_password || std::io::stdin().is_terminal() { Self::Sudo } else { Self::None }
    }

    /// A command for `program` that runs as root, with the variables of [`PASSED_ON`] and `env`.
    ///
    /// # Errors
    /// When there is no way to become root; `purpose` says what it was for.
    pub(crate) fn command(
        self,
        program: impl AsRef<OsStr>,
        env: &[(&str, &Path)],
        purpose: &str,
    ) -> Result<Command> {
        match self {
            Self::Root => {
                let mut command = Command::new(program);
                command.envs(env.iter().copied());
                Ok(command)
            }
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg("env");
                for name in PASSED_ON {
                    if let Some(value) = std::env::var_os(name) {
                        command.arg(assignment(name, &value));
                    }
                }
                for (name, value) in env {
                    command.arg(assignment(name, value.as_os_str()));
                }
                command.arg(program);
                Ok(command)
            }
            Self::None => bail!(
                "{purpose} needs root, and this user is not root and has no working sudo: \
                 run it as root, or as a user who may use sudo"
            ),
        }
    }
}

fn assignment(name: &str, value: &OsStr) -> std::ffi::OsString {
    let mut word = std::ffi::OsString::from(name);
    word.push("=");
    word.push(value);
    word
}

fn effective_uid() -> Option<u32> {
    effective_uid_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The second number of the `Uid:` line (real, effective, saved, file system): proc_pid_status(5).
fn effective_uid_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_uid() {
        assert_eq!(effective_uid_in("Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t1\t1\t1\t1\n"), Some(0));
        assert_eq!(effective_uid_in("Name:\tx\n"), None);
    }

    #[test]
    fn sudo_carries_the_variables_across() {
        let env = [("POSTERN_EXAMPLE", Path::new("/a b"))];
        let command = Privilege::Sudo.command("/bin/x", &env, "a test").unwrap();
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words[0], "env");
        assert!(words.contains(&"POSTERN_EXAMPLE=/a b".into()), "{words:?}");
        assert_eq!(words.last().map(AsRef::as_ref), Some("/bin/x"));
    }

    #[test]
    fn without_root_the_purpose_is_named() {
        let error = Privilege::None.command("x", &[], "the lab").unwrap_err().to_string();
        assert!(error.starts_with("the lab needs root"), "{error}");
    }
}
