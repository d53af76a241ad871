//! The moment before the banner, in which an honest client is silent (RFC 5321 section 3.1).

use std::{io, os::fd::AsRawFd, time::Instant};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use relay_core::policy::connection::Standing;
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};
use tokio_util::{either::Either, sync::CancellationToken};

use super::Connection;
use crate::relay::questions::Questions;

impl Connection<Questions> {
    /// Looks what came before the banner, after `limits.pregreet_wait` where that is to be waited.
    /// The session hears of it, and ends. Of a known or trusted source nothing is expected: of its
    /// octets only the number is returned, and the session may have them after the banner.
    ///
    /// Inside TLS nobody is made to wait: whoever got there has kept to a protocol already.
    pub(super) async fn early_talk(
        &mut self,
        bytes: &mut [u8],
        stop: &CancellationToken,
    ) -> io::Result<usize> {
        let Some(Either::Left(stream)) = &mut self.stream else { return Ok(0) };
        let shared = &self.questions.shared;
        let wait = shared.pregreet_wait;
        let mut here = read_what_is_here(stream, bytes)?;
        if here.is_none() && wait.is_zero() {
            return Ok(0);
        }
        let source = &mut self.questions.source;
        let exempt = shared.known.on(&self.questions.listener, source.address)
            || source.standing(shared).await == Standing::Trusted;
        if here.is_none() && !exempt {
            here = tokio::select! {
                read = timeout(wait, stream.read(bytes)) => read.ok().transpose()?,
                () = stop.cancelled() => {
                    self.stopping = true;
                    self.session.shut_down();
                    None
                }
            };
        }
        match here {
            None => Ok(0),
            Some(0) => {
                self.session.peer_closed();
                Ok(0)
            }
            Some(length) if exempt => Ok(length),
            Some(length) => {
                self.session.push(&bytes[..length], Instant::now());
                Ok(0)
            }
        }
    }
}

/// Reads without waiting; `None`: nothing has come. Straight from the kernel: of a new connection
/// the runtime may not know yet that there is something.
fn read_what_is_here(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    match recv(stream.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
        Ok(length) => Ok(Some(length)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
