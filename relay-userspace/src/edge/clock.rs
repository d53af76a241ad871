//! The two clocks of the edge, read together: wall time for what is kept on disk, and
//! CLOCK_BOOTTIME for what the kernel compares against.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970-01-01 UTC. May step.
    pub wall_ms: u64,
    /// Milliseconds since boot, sleep included. Never steps.
    pub boot_ms: u64,
}

impl Now {
    /// Whole seconds since 1970-01-01 UTC.
    pub fn wall_s(self) -> u64 {
        self.wall_ms / 1000
    }

    /// The second the kernel program compares expiries with.
    pub fn boot_s(self) -> u32 {
        u32::try_from(self.boot_ms / 1000).unwrap_or(u32::MAX)
    }

    /// The wall second at which something that lasts `ttl` from now is over, rounded up.
    pub fn wall_s_after(self, ttl: Duration) -> u64 {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.wall_ms.saturating_add(ttl_ms).div_ceil(1000)
    }

    /// Wall time less boot time: constant unless somebody sets the clock.
    pub fn offset_ms(self) -> i128 {
        i128::from(self.wall_ms) - i128::from(self.boot_ms)
    }
}

/// Where the edge takes the time from; a test gives its own.
pub type Clock = Box<dyn Fn() -> Now + Send>;

/// The machine's clocks.
pub fn system() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    Now { wall_ms: millis(wall), boot_ms: millis(boot) }
}

/// Second on CLOCK_BOOTTIME, which goes on through suspend and is never set: what an entry's
/// `expires_s` is compared with, in the kernel program too.
pub fn boottime_s() -> u32 {
    system().boot_s()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
