//! Telling userspace about single packets: so many a second at most, so that a flood costs no more
//! than a trickle. What is left out is counted.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use relay_common::event::{Event, Fate};
use relay_common::layout;
use relay_common::parse::Packet;
use relay_common::totals::Counter;
use relay_common::verdict::Verdict;

use crate::{clock, count, settings};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(layout::EVENT_BYTES, 0);
/// The second that is running, and the events that were told in it, of this CPU.
#[map]
static TOLD: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Tells of a packet that an entry has dropped or would drop.
#[inline(always)]
pub(crate) fn decided(packet: &Packet, verdict: &Verdict) {
    let (entry, fate) = match verdict {
        Verdict::Denied(entry) => (entry, Fate::Dropped),
        Verdict::Observed(entry) => (entry, Fate::Observed),
        _ => return,
    };
    tell(packet, fate, entry.rule, entry.reason, entry.prefix_len);
}

/// Tells of a packet that opened one connection too many.
#[inline(always)]
pub(crate) fn limited(packet: &Packet, observed: bool) {
    let fate = if observed { Fate::Observed } else { Fate::Limited };
    tell(packet, fate, 0, 0, 0);
}

#[inline(always)]
fn tell(packet: &Packet, fate: Fate, rule: u32, reason: u8, prefix_len: u8) {
    if !within_budget(clock::boot_s().into()) {
        count::packet(Counter::EventLeftOut);
        return;
    }
    let at_ns = clock::boot_ns();
    let (source, port) = (packet.source, packet.port);
    let event = Event { at_ns, source, port, fate, rule, reason, prefix_len };
    match EVENTS.reserve::<[u64; Event::WORDS]>(0) {
        Some(mut slot) => {
            slot.write(event.to_words());
            slot.submit(0);
            count::packet(Counter::EventTold);
        }
        None => count::packet(Counter::EventLost),
    }
}

#[inline(always)]
fn within_budget(now_s: u64) -> bool {
    let (Some(settings), Some(told)) = (settings::get(), TOLD.get_ptr_mut(0)) else { return false };
    // SAFETY: the slot is this CPU's own, and a map's value lives as long as the program.
    let [second, count] = unsafe { &mut *told };
    if *second != now_s {
        *second = now_s;
        *count = 0;
    }
    *count += 1;
    *count <= u64::from(settings.events_per_s)
}
