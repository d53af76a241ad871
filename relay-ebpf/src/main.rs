//! The XDP program: a thin shell over relay-common, which parses and judges. Here are only the
//! maps, the packet's bytes, the clock and the counters.
//!
//! Built for the BPF target by relay-userspace/build.rs. On any other target it compiles to an
//! empty program, so that clippy and editors see it.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code))]

mod clock;
mod count;
mod frame;
mod limit;
mod lists;
mod log;
mod settings;
mod tell;
mod verifier;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use relay_common::control::Control;
use relay_common::entry::Scope;
use relay_common::parse::{Packet, parse};
use relay_common::totals::{Counter, is_v4_mapped};
use relay_common::verdict::{Lists, Verdict, decide};

/// `frags`: frames that do not fit a page arrive in pieces, and drivers refuse a program that does
/// not say it can bear that. The headers are in the first piece.
#[xdp(frags)]
fn postern(ctx: XdpContext) -> u32 {
    let mut packet = match parse(&frame::Linear::of(&ctx)) {
        Ok(packet) => packet,
        Err(why) => {
            count::packet(Counter::of_unjudged(why));
            return XDP_PASS;
        }
    };
    verifier::forget_the_path(&mut packet);
    if is_v4_mapped(&packet.source) {
        count::packet(Counter::V4Mapped);
    }
    let control = lists::control();
    let lists = lists::Tables::under(control);
    let verdict = decide(&lists, control, &packet);
    let may_be_limited = match &verdict {
        Verdict::Unguarded => false,
        Verdict::Clean => true,
        Verdict::Allowed(_) | Verdict::Observed(_) | Verdict::Denied(_) => {
            noted(&ctx, &packet, &verdict, &lists, control);
            verdict.is_no_more_than_observed(&packet)
        }
    };
    if may_be_limited && control.limits_syn() && opens_mail(&packet) && limit::exceeds(&packet) {
        return limited(&packet, control);
    }
    count::packet(Counter::of_verdict(&packet, &verdict));
    if verdict.drops() { XDP_DROP } else { XDP_PASS }
}

/// Whether a packet opens a connection to a mail port.
#[inline(always)]
fn opens_mail(packet: &Packet) -> bool {
    packet.class.intersects(Scope::SMTP) && packet.opens_connection()
}

/// Drops a packet that opens one connection too many, unless the filter only observes.
#[inline(always)]
fn limited(packet: &Packet, control: Control) -> u32 {
    let observed = control.observes();
    count::packet(Counter::of_limit(packet.source.family(), observed));
    if control.tells() {
        tell::limited(packet, observed);
    }
    if observed { XDP_PASS } else { XDP_DROP }
}

/// Counts the rule of the entry that decided, and tells whoever wants to know.
#[inline(always)]
fn noted(
    ctx: &XdpContext,
    packet: &Packet,
    verdict: &Verdict,
    lists: &lists::Tables,
    control: Control,
) {
    count::rule(verdict, lists.now_s());
    if control.tells() {
        tell::decided(packet, verdict);
    }
    if let Verdict::Denied(entry) = verdict {
        log::dropped(ctx, packet, entry);
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing that panics survives compilation: the verifier refuses an endless loop.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// The kernel gives some helpers only to programs under a licence compatible with its own.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
