//! Help for the verifier, which follows each path on its own unless two look the same to it.

use relay_common::parse::{Packet, Source};
use relay_common::touch::Touch;

/// Zero, of which the verifier knows nothing: to it a byte of the packet may be anything, and so may
/// what was mixed with it; to the compiler the second one may be another.
#[inline(always)]
fn nothing(source: &Source) -> u8 {
    let noise = match source {
        Source::V4(address) => *address as u64,
        Source::V6 { interface, .. } => *interface,
    };
    (noise ^ another(noise)) as u8
}

/// The same number, of which the compiler does not know that.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) fn another(number: u64) -> u64 {
    let same;
    // In a register. What the standard library has for this goes through memory.
    // SAFETY: it copies one register to another.
    unsafe {
        core::arch::asm!("{} = {}", out(reg) same, in(reg) number, options(pure, nomem, nostack));
    }
    same
}

#[cfg(not(target_arch = "bpf"))]
pub(crate) fn another(number: u64) -> u64 {
    core::hint::black_box(number)
}

/// Makes the verifier forget by which path a packet was read. Otherwise it would follow all that
/// comes for each class of traffic anew.
#[inline(always)]
pub(crate) fn forget_the_path(packet: Packet) -> Packet {
    let mix = nothing(&packet.source);
    Packet { class: packet.class.mixed(mix), flags: packet.flags ^ mix, ..packet }
}

/// Makes it forget which marks there were, which is sixteen ways to come to the same.
#[inline(always)]
pub(crate) fn forget_the_marks(touch: Touch, source: &Source) -> Touch {
    if touch.is_none() {
        return touch;
    }
    let bits = (u8::from(touch.hosts) | u8::from(touch.prefixes) << 1) ^ nothing(source);
    Touch { hosts: bits & 1 != 0, prefixes: bits & 2 != 0 }
}
