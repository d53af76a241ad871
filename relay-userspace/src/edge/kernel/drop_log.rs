//! The kernel program's own lines, one for each dropped packet, handed on to the log.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use aya_log::EbpfLogger;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::AttachError;

/// How soon the reader sees that it is to end.
const LOOK_UP_EVERY_MS: u16 = 200;

/// A thread that reads the lines; dropping this ends it.
///
/// The ring holds a bounded number of lines: under a flood the program drops those that find no
/// room, while its counters go on counting every packet.
#[derive(Debug)]
pub struct DropLog {
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl DropLog {
    /// Begins to read the lines of a program that was loaded with `log_drops`.
    ///
    /// # Errors
    /// The program has no such lines, or the kernel refuses to hand over its ring.
    pub fn of(program_id: u32) -> Result<Self, AttachError> {
        let failed = |error| AttachError::load("reading the log of the XDP program", error);
        let mut logger = EbpfLogger::init_from_id(program_id).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let read = move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut ring = [PollFd::new(logger.as_fd(), PollFlags::POLLIN)];
                if let Err(error) = poll(&mut ring, PollTimeout::from(LOOK_UP_EVERY_MS))
                    && error != nix::errno::Errno::EINTR
                {
                    tracing::error!(%error, "cannot wait for the log of the XDP program");
                    return;
                }
                logger.flush();
            }
        };
        let reader = std::thread::Builder::new().name("drop-log".into()).spawn(read);
        let reader = reader.map_err(|error| AttachError::load("starting a thread", error))?;
        Ok(Self { stop, reader: Some(reader) })
    }
}

impl Drop for DropLog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            tracing::error!("the reader of the XDP program's log has panicked");
        }
    }
}
