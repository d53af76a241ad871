//! A line for each dropped packet, for whoever watches a source for a while.
//!
//! The level of the lines is a constant that is set when the program is loaded; with 0, the default
//! of the edge, the verifier removes all of this.

use core::net::{Ipv4Addr, Ipv6Addr};

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::info;
use relay_common::entry::Entry;
use relay_common::parse::{Packet, Source};

#[inline(always)]
pub(crate) fn dropped(ctx: &XdpContext, packet: &Packet, entry: &Entry) {
    let (class, rule, reason) = (packet.class.bits(), entry.rule, entry.reason);
    match packet.source {
        Source::V4(address) => {
            let address = Ipv4Addr::from_bits(address);
            info!(ctx, "drop {:i} class {} rule {} reason {}", address, class, rule, reason);
        }
        Source::V6 { network, interface } => {
            let address = Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(interface));
            info!(ctx, "drop {:i} class {} rule {} reason {}", address, class, rule, reason);
        }
    }
}
