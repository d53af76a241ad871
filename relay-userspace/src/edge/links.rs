//! Hearing from the kernel that an interface came, went, or changed, so that one made anew is not
//! unguarded until the next look. It is only heard *that* something changed: what that means is
//! found by looking at every interface of the configuration, as the look that comes anyway does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, recv};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

use super::daemon::EdgeHandle;
use crate::control::api::Code;

/// Looks that may follow one another at once. A device that is made, renamed and set up is told of
/// some ten times, and each time may be the one that counts.
const AT_ONCE_MAX: u32 = 16;
/// After that, one look in this time, however many interfaces come and go.
const THEN_EVERY: Duration = Duration::from_millis(200);
/// Messages that are taken out before a look; whatever is left calls for the next one.
const DRAIN_MAX: usize = 4_096;

/// A netlink socket that hears of the links of one network namespace: that of the thread which
/// opened it. Nothing can be reached through it but the local kernel.
#[derive(Debug)]
pub struct LinkEvents(Socket);

impl LinkEvents {
    /// Hears of everything from now on.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub fn open() -> io::Result<Self> {
        let protocol = Protocol::from(libc::NETLINK_ROUTE);
        let kind = Type::RAW.nonblocking();
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), kind, Some(protocol))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))?;
        Ok(Self(socket))
    }

    /// Takes out what waits, up to a limit. Whether there was anything.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn drain(&self) -> io::Result<Drained> {
        // What a message says does not matter, so that its end may be cut off.
        let mut message = [0; 16];
        for taken in 0..DRAIN_MAX {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
                // More was told than the socket holds: that is news, too.
                Ok(_) | Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => {
                    return Ok(Drained { any: taken > 0, all: true });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Drained { any: true, all: false })
    }
}

/// What was taken out of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    pub any: bool,
    /// Nothing is left.
    pub all: bool,
}

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for LinkEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// What the owner is to know of the links without being asked: a look that is called for must not
/// wait behind requests.
#[derive(Debug, Default)]
pub struct LinkNews {
    changed: AtomicBool,
    lost: OnceLock<String>,
}

impl LinkNews {
    /// Calls for a look at the interfaces.
    pub fn tell(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Whether a look was called for since the last time.
    pub(super) fn take(&self) -> bool {
        self.changed.swap(false, Ordering::Acquire)
    }

    /// Why nothing is heard, if so.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    fn lose(&self, error: &io::Error) {
        let why = format!("the kernel's messages on interfaces cannot be had: {error}");
        tracing::error!("{why}; their changes are found by a look every few seconds");
        // Only the first reason counts; nothing is heard after it.
        let _ = self.lost.set(why);
    }
}

/// Has the owner look at its interfaces whenever the kernel tells of one, until the owner ends. What
/// cannot be heard is logged, and stands in the status.
pub async fn watch(events: io::Result<LinkEvents>, owner: EdgeHandle) {
    let heard = match events {
        Ok(events) => hear(events, &owner).await,
        Err(error) => Err(error),
    };
    if let Err(error) = heard {
        owner.link_news().lose(&error);
    }
}

async fn hear(events: LinkEvents, owner: &EdgeHandle) -> io::Result<()> {
    // SAFETY: the descriptor is owned by `events`, which neither replaces nor closes it.
    let events = unsafe { AsyncFd::register(events) }?;
    let mut pace = Pace::new(Instant::now());
    loop {
        let mut ready = events.readable().await?;
        // Before the look: what is told meanwhile calls for another one.
        let drained = events.get_ref().drain()?;
        if drained.all {
            ready.clear_ready();
        }
        if drained.any {
            if owner.look_at_links().await.is_err_and(|why| why.code != Code::Busy) {
                // The owner has ended.
                return Ok(());
            }
            sleep(pace.after_look(Instant::now())).await;
        }
    }
}

/// How closely looks may follow one another.
struct Pace {
    /// When all looks so far would be over, had each taken its share of time.
    paid_until: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { paid_until: now }
    }

    /// How long the next look has to wait, after one at this time.
    fn after_look(&mut self, now: Instant) -> Duration {
        self.paid_until = self.paid_until.max(now) + THEN_EVERY;
        (self.paid_until - now).saturating_sub(THEN_EVERY * (AT_ONCE_MAX - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_looks_come_at_once_and_many_at_a_bounded_rate() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 1..AT_ONCE_MAX {
            assert_eq!(pace.after_look(now), Duration::ZERO);
        }
        // Interfaces that come and go without end.
        let (begin, mut looks) = (now, 0);
        while now < begin + Duration::from_secs(60) {
            now += pace.after_look(now) + Duration::from_millis(1);
            looks += 1;
        }
        assert!((295..=301).contains(&looks), "{looks} in a minute");
        // A quiet time, and there is room again, but no more than at first.
        now += Duration::from_secs(3_600);
        for _ in 1..AT_ONCE_MAX {
            assert_eq!(pace.after_look(now), Duration::ZERO);
        }
        assert_eq!(pace.after_look(now), THEN_EVERY);
    }

    #[tokio::test]
    async fn what_cannot_be_heard_is_told_once() {
        let news = LinkNews::default();
        assert_eq!(news.lost(), None);
        news.lose(&io::Error::from_raw_os_error(libc::EMFILE));
        news.lose(&io::Error::from_raw_os_error(libc::EBADF));
        assert!(news.lost().is_some_and(|why| why.contains("Too many open files")));
    }
}
