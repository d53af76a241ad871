//! Telling userspace about single packets: so many a second at most, so that a flood costs no more
//! than a trickle. What is left out is counted.

use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use relay_common::entry::Entry;
use relay_common::event::{Event, Fate};
use relay_common::layout;
use relay_common::parse::Packet;
use relay_common::totals::Counter;

use crate::cpu::{Cpu, boot_ns};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(layout::EVENT_BYTES, 0);

/// Tells of what became of a packet, by which entry.
#[inline(always)]
pub(crate) fn of(packet: &Packet, fate: Fate, entry: &Entry, cpu: Cpu) {
    let (source, port) = (packet.source, packet.port);
    let (rule, reason, prefix_len) = (entry.rule, entry.reason, entry.prefix_len);
    let event = Event { at_ns: boot_ns(), source, port, fate, rule, reason, prefix_len };
    tell(&event.to_words(), cpu);
}

/// Apart: few of many packets come here.
#[inline(never)]
fn tell(event: &[u64; Event::WORDS], cpu: Cpu) {
    match EVENTS.reserve::<[u64; Event::WORDS]>(0) {
        Some(mut slot) => {
            slot.write(*event);
            slot.submit(0);
            cpu.count(Counter::EventTold);
        }
        None => cpu.count(Counter::EventLost),
    }
}
