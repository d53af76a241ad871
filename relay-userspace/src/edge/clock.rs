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

    /// The wall second of a second since boot, which lies below 0 before it; `None` of 0.
    pub fn wall_s_at(self, boot_s: i64) -> Option<u64> {
        let wall_ms = i128::from(boot_s) * 1000 + self.offset_ms();
        let wall_s = u64::try_from(wall_ms.max(0) / 1000).unwrap_or(u64::MAX);
        (boot_s != 0).then(|| wall_s.min(self.wall_s()))
    }

    /// The second since boot of a wall second, not after now; below 0 before the boot, never 0.
    pub fn boot_s_at(self, wall_s: u64) -> i64 {
        let wall_s = wall_s.min(self.wall_s());
        let boot_ms = i128::from(wall_s) * 1000 - self.offset_ms();
        // Rounded up, as a wall second is rounded down: it comes back as it was.
        match i64::try_from((boot_ms + 999).div_euclid(1000)) {
            Ok(0) => -1,
            boot_s => boot_s.unwrap_or(i64::MAX),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_the_same_on_the_way_to_boot_time_and_back() {
        for wall_ms in [1_800_000_000_000, 1_800_000_000_001, 1_800_000_000_999] {
            let now = Now { wall_ms, boot_ms: 50_000_500 };
            for wall_s in [1_799_949_000, 1_799_950_001, 1_799_990_000, now.wall_s()] {
                assert_eq!(now.wall_s_at(now.boot_s_at(wall_s)), Some(wall_s), "{now:?}");
            }
            assert!(now.boot_s_at(1_700_000_000) < 0);
            assert_eq!(now.boot_s_at(1_900_000_000), now.boot_s_at(now.wall_s()));
            assert_eq!(now.wall_s_at(0), None);
        }
    }
}
