//! The moment before the banner, in which an honest client is silent (RFC 5321 section 3.1).

use std::{io, time::Instant};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use relay_core::policy::connection::Standing;
use tokio::time::timeout;
use tokio_util::{either::Either, sync::CancellationToken};

use super::{Connection, reading::read_once};
use crate::relay::{
    door::{Socket, descriptor},
    questions::Questions,
};

impl Connection<Questions> {
    /// Looks what came before the banner, after `limits.pregreet_wait` where that is to be waited.
    /// The session hears of it, and ends. Of a known or trusted source nothing is expected:
    /// its octets are only returned, and the session may have them after the banner.
    ///
    /// Inside TLS nobody is made to wait: whoever got there has kept to a protocol already. Nor is a
    /// program of this machine.
    pub(super) async fn early_talk(&mut self, stop: &CancellationToken) -> io::Result<Vec<u8>> {
        let Some(Either::Left(stream)) = &mut self.stream else { return Ok(Vec::new()) };
        if self.questions.source.user.is_some() {
            return Ok(Vec::new());
        }
        let shared = &self.questions.shared;
        let wait = shared.pregreet_wait;
        let mut here = read_what_is_here(stream)?;
        if here.is_none() && wait.is_zero() {
            return Ok(Vec::new());
        }
        let source = &mut self.questions.source;
        let exempt = shared.known.on(&self.questions.listener, source.address)
            || source.standing(shared).await == Standing::Trusted;
        if here.is_none() && !exempt {
            here = tokio::select! {
                read = timeout(wait, read_once(stream, <[u8]>::to_vec)) => read.ok().transpose()?,
                () = stop.cancelled() => {
                    self.shut_down();
                    None
                }
            };
        }
        match here {
            None => Ok(Vec::new()),
            Some(bytes) if bytes.is_empty() => {
                self.session.peer_closed();
                Ok(bytes)
            }
            Some(bytes) if exempt => Ok(bytes),
            Some(bytes) => {
                self.session.push(&bytes, Instant::now());
                Ok(Vec::new())
            }
        }
    }
}

/// Reads without waiting; `None`: nothing has come. Straight from the kernel: of a new connection
/// the runtime may not know yet that there is something.
fn read_what_is_here(stream: &Socket) -> io::Result<Option<Vec<u8>>> {
    // Enough to be told by; the rest is read on, if anyone still wants it.
    let mut bytes = [0; 4096];
    match recv(descriptor(stream), &mut bytes, MsgFlags::MSG_DONTWAIT) {
        Ok(length) => Ok(Some(bytes[..length].to_vec())),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
