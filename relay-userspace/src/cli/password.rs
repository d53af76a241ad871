//! Passwords: from standard input, or from a prompt that does not show them.

use std::io::{self, Read, Write};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::session::{Failure, Session};

/// More than any password; SASL PLAIN has to carry it in one line.
const PASSWORD_BYTES_MAX: usize = 1024;

/// The first line of standard input. At a terminal it is asked for twice.
pub(super) fn read(on: &mut Session<'_>) -> Result<String, Failure> {
    if !on.interactive {
        return line(on.input);
    }
    let hidden = Hidden::start()?;
    let once = ask("Password: ", on)?;
    let twice = ask("Once more: ", on)?;
    drop(hidden);
    if once != twice {
        return Err(Failure::Said("the passwords differ; nothing was changed".to_owned()));
    }
    Ok(once)
}

fn ask(prompt: &str, on: &mut Session<'_>) -> Result<String, Failure> {
    write!(on.err, "{prompt}")?;
    on.err.flush()?;
    let answer = line(on.input);
    writeln!(on.err)?;
    answer
}

/// One line, byte by byte: what stands behind it is left for the next.
fn line(input: &mut dyn Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while input.read(&mut byte)? == 1 && byte[0] != b'\n' {
        bytes.push(byte[0]);
        if bytes.len() > PASSWORD_BYTES_MAX {
            let message = format!("a password has at most {PASSWORD_BYTES_MAX} bytes");
            return Err(Failure::Said(message));
        }
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::Said("the password is not UTF-8".to_owned()))?;
    if text.is_empty() {
        return Err(Failure::Said("the password is empty".to_owned()));
    }
    Ok(text)
}

/// A terminal that does not echo, until this is dropped or a signal ends the process.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        mend_at_signals(before.clone())?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { before })
    }
}

/// Signals that end the process wait for a thread that makes the terminal echo again first.
fn mend_at_signals(before: Termios) -> io::Result<()> {
    let ends: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    ends.thread_block()?;
    std::thread::Builder::new().name("mend-terminal".into()).spawn(move || {
        let Ok(signal) = ends.wait() else { return };
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &before);
        let _ = writeln!(io::stderr());
        // As a shell tells of a process that a signal has ended.
        std::process::exit(128 + signal as i32);
    })?;
    Ok(())
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that has gone away needs no echo.
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.before);
    }
}
