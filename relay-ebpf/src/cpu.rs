//! What each CPU has for itself: its counters, the clock of its tick, and how much of a second's budgets
//! is spent.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use relay_common::layout::{self, Settings};
use relay_common::totals::Counter;

#[map]
static CPU: PerCpuArray<layout::Cpu> = PerCpuArray::with_max_entries(1, 0);

const NS_PER_S: u64 = 1_000_000_000;

/// The running CPU's own.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    own: *mut layout::Cpu,
}

impl Cpu {
    /// Never `None`, which the verifier does not know.
    #[inline(always)]
    pub(crate) fn look_up() -> Option<Self> {
        CPU.get_ptr_mut(0).map(|own| Self { own })
    }

    #[inline(always)]
    fn own(&mut self) -> &mut layout::Cpu {
        // SAFETY: nobody else writes there, a map's value lives as long as the program, and no two of
        // these references are alive at once.
        unsafe { &mut *self.own }
    }

    #[inline(always)]
    pub(crate) fn count(mut self, counter: Counter) {
        if let Some(count) = self.own().counters.get_mut(counter.index() as usize) {
            *count += 1;
        }
    }

    /// The second of CLOCK_BOOTTIME, as it was when the running tick began or later: no more than some
    /// milliseconds old. A flood's packets share one reading of the clock, which costs as much as a
    /// lookup does.
    #[inline(always)]
    pub(crate) fn boot_s(mut self) -> u32 {
        // SAFETY: the helper takes nothing and touches nothing; it is a load.
        let tick = unsafe { bpf_jiffies64() };
        let own = self.own();
        if own.tick != tick {
            own.second = boot_ns() / NS_PER_S;
            own.tick = tick;
        }
        own.second as u32
    }

    /// Whether another event may be told in this second.
    #[inline(always)]
    pub(crate) fn may_tell(mut self, settings: Settings, now_s: u32) -> bool {
        self.own().told.count(now_s.into()) <= settings.events_per_s.into()
    }

    /// Whether so few connections are opened over all in this second that nobody is limited.
    #[inline(always)]
    pub(crate) fn is_quiet(mut self, settings: Settings, now_s: u32) -> bool {
        self.own().opened.count(now_s.into()) <= settings.syn_free_per_s.into()
    }
}

/// The clock that counts on while the machine sleeps, as userspace's CLOCK_BOOTTIME does.
#[inline(always)]
pub(crate) fn boot_ns() -> u64 {
    // SAFETY: the helper takes nothing and touches nothing.
    unsafe { bpf_ktime_get_boot_ns() }
}
