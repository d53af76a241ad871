//! Help for the verifier, which follows each path on its own unless two look the same to it.

use relay_common::parse::{Packet, Source};
use relay_common::touch::Touch;

/// Zero, of which the verifier knows nothing: to it a byte of the packet may be anything, and so may
/// what was mixed with it; to the compiler the second one may be another.
#[inline(always)]
fn nothing(source: &Source) -> u8 {
    let noise = match source {
        Source::V4(ip) => ip[3],
        Source::V6(ip) => ip[15],
    };
    noise ^ core::hint::black_box(noise)
}

/// Makes the verifier forget by which path a packet was read. Otherwise it would follow all that
/// comes for each class of traffic anew.
#[inline(always)]
pub(crate) fn forget_the_path(packet: &mut Packet) {
    let mix = nothing(&packet.source);
    packet.class = packet.class.mixed(mix);
    packet.flags ^= mix;
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
