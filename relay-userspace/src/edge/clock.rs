//! The clock that entries expire by.

use nix::time::{ClockId, clock_gettime};

/// Second on CLOCK_BOOTTIME, which goes on through suspend and is never set: what an entry's
/// `expires_s` is compared with, in the kernel program too.
pub fn boottime_s() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .expect("CLOCK_BOOTTIME is there since Linux 2.6.39, older than anything else needed");
    // 136 years of uptime before this saturates.
    u32::try_from(now.tv_sec()).unwrap_or(u32::MAX)
}
