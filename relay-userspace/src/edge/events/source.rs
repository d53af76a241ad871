//! Where events come from: the kernel's ring buffer, or what the memory filter refuses at accept.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use relay_common::event::Event;

/// Events of one filter, for one reader.
pub trait EventSource: Send {
    /// Waits up to `wait` for events and puts at most so many of them behind those in `into`.
    ///
    /// # Errors
    /// The source is broken, or will never have events again.
    fn read(&mut self, at_most: usize, wait: Duration, into: &mut Vec<Event>) -> io::Result<()>;
}

/// Events that may wait for the reader.
const WAITING_MAX: usize = 1024;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Told,
    /// This second's budget was spent.
    LeftOut,
    /// The reader is too slow.
    Lost,
}

/// The writing end in memory, with the same budget as the kernel program keeps.
#[derive(Debug)]
pub struct Teller {
    sender: SyncSender<Event>,
    /// The second that is running, and the events of it.
    second: (u64, u32),
}

/// The reading end in memory.
#[derive(Debug)]
pub struct Inbox(Receiver<Event>);

/// Both ends of a bounded queue.
pub fn in_memory() -> (Teller, Inbox) {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    (Teller { sender, second: (0, 0) }, Inbox(receiver))
}

impl Teller {
    /// Tells of a packet, unless so many were told in its second already.
    pub fn tell(&mut self, event: Event, per_s_max: u32) -> Told {
        let second = event.at_ns / 1_000_000_000;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 = self.second.1.saturating_add(1);
        if self.second.1 > per_s_max {
            return Told::LeftOut;
        }
        match self.sender.try_send(event) {
            Ok(()) => Told::Told,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Told::Lost,
        }
    }
}

impl EventSource for Inbox {
    fn read(&mut self, at_most: usize, wait: Duration, into: &mut Vec<Event>) -> io::Result<()> {
        match self.0.recv_timeout(wait) {
            Ok(event) => into.push(event),
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        into.extend(self.0.try_iter().take(at_most.saturating_sub(1)));
        Ok(())
    }
}
