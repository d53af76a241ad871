//! The ring buffer into which the kernel program writes events.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use relay_common::event::Event;

use crate::edge::events::source::EventSource;

/// What the program has written and nobody has read, from before a restart too.
pub(super) struct Ring(pub(super) RingBuf<MapData>);

impl EventSource for Ring {
    fn read(&mut self, at_most: usize, wait: Duration, into: &mut Vec<Event>) -> io::Result<()> {
        let mut ring = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        match poll(&mut ring, wait) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // Bounded: under a flood there is always a next one.
        for _ in 0..at_most {
            let Some(bytes) = self.0.next() else { break };
            into.extend(event_of(&bytes));
        }
        Ok(())
    }
}

fn event_of(bytes: &[u8]) -> Option<Event> {
    let (words, []) = bytes.as_chunks::<8>() else { return None };
    let words: [[u8; 8]; Event::WORDS] = words.try_into().ok()?;
    Event::from_words(words.map(u64::from_ne_bytes))
}
