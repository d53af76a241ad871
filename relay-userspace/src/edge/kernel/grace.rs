//! Waiting until no packet is judged any more by what was in force a moment ago.

use std::io;
use std::time::Duration;

/// `MEMBARRIER_CMD_GLOBAL` of membarrier(2): returns after an RCU grace period, and a program that
/// judges a packet is in a read-side critical section of RCU throughout.
const COMMAND_GLOBAL: libc::c_long = 1;
/// Where the kernel does not offer it (nohz_full): longer than any packet takes.
const INSTEAD: Duration = Duration::from_millis(100);

/// Waits for every packet whose judging had begun. Takes about ten milliseconds.
pub(super) fn wait() {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, COMMAND_GLOBAL, 0) };
    if result < 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(%error, "no membarrier; waiting by the clock");
        std::thread::sleep(INSTEAD);
    }
}
