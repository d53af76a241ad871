//! A program at a terminal of its own, as somebody who sits there sees it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::process::{Process, until};

/// What a program has said is read so long after its end, on the busiest machine.
const SAID_BY_THEN: Duration = Duration::from_secs(5);

/// The terminal, and the program at it.
#[derive(Debug)]
pub struct Pty {
    process: Process,
    keyboard: File,
    /// Kept open, so that its settings can be looked at after the program has ended.
    terminal: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
    _reader: JoinHandle<()>,
}

impl Pty {
    /// Starts a command at a terminal of this size. It is the one that the program's /dev/tty is.
    ///
    /// # Errors
    /// There is no terminal to be had, or the program cannot be started.
    pub fn start(command: &Command, columns: u16, rows: u16) -> Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None)?;
        // It becomes the program itself, so that signals reach it.
        let mut there = Command::new("setsid");
        there.arg("--ctty").arg(command.get_program()).args(command.get_args());
        there.env("TERM", "xterm").env("LANG", "C.UTF-8");
        there.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?);
        there.stderr(pty.slave.try_clone()?);
        let process = Process::start_with_input(&mut there)?;
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, seen) = (File::from(pty.master.try_clone()?), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // An error is the end: the other side is closed.
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                seen.lock().expect("nobody panics with it").extend(&piece[..length]);
            }
        });
        let keyboard = File::from(pty.master);
        Ok(Self { process, keyboard, terminal: pty.slave, shown, _reader: reader })
    }

    /// All that was shown, escape sequences too.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("nobody panics with it")).into_owned()
    }

    /// Waits until this has been shown.
    ///
    /// # Errors
    /// It was not, in time.
    pub fn until_shown(&mut self, text: &str) -> Result<()> {
        let mut ended_at = None;
        let shown = until(&format!("{text:?} on the terminal"), || {
            if self.process.try_wait()?.is_some() {
                ended_at.get_or_insert_with(Instant::now);
            }
            // What it said at its end may still be on its way here.
            let is_silent = ended_at.is_some_and(|at| at.elapsed() > SAID_BY_THEN);
            Ok((self.shown().contains(text) || is_silent).then_some(()))
        });
        ensure!(
            self.shown().contains(text),
            "{text:?} was not shown ({shown:?}): {}",
            self.shown()
        );
        Ok(())
    }

    /// # Errors
    /// The terminal is gone.
    pub fn press(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.keyboard.write_all(keys)?)
    }

    /// # Errors
    /// The program is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait()
    }

    /// Whether whoever sits there can type as usual: lines, with echo.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn types_as_usual(&self) -> Result<bool> {
        let usual = LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
        Ok(tcgetattr(&self.terminal)?.local_flags.contains(usual))
    }
}
