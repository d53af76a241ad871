//! The XDP program: a thin shell over relay-common, which parses and judges. Here are only the
//! maps, the packet's bytes, the clock and the counters.
//!
//! Built for the BPF target by relay-userspace/build.rs. On any other target it compiles to an
//! empty program, so that clippy and editors see it.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
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
use relay_common::parse::{self, Family, Packet, Unjudged};
use relay_common::totals::{Counter, is_v4_mapped};
use relay_common::verdict::{Lists, Verdict, decide};

/// `frags`: frames that do not fit a page arrive in pieces, and drivers refuse a program that does
/// not say it can bear that. The headers are in the first piece.
#[xdp(frags)]
#[inline(always)]
fn postern(ctx: XdpContext) -> u32 {
    let frame = frame::Linear::of(&ctx);
    // All that follows stands in the program once for each family, which is known in each.
    match parse::ethernet(&frame) {
        Ok((Family::V4, offset)) => judge(&ctx, parse::ipv4(&frame, offset)),
        Ok((Family::V6, offset)) => judge(&ctx, parse::ipv6(&frame, offset)),
        Err(why) => unjudged(why),
    }
}

#[inline(always)]
fn unjudged(why: Unjudged) -> u32 {
    count::packet(Counter::of_unjudged(why));
    XDP_PASS
}

#[inline(always)]
fn judge(ctx: &XdpContext, parsed: Result<Packet, Unjudged>) -> u32 {
    let packet = match parsed {
        Ok(packet) => verifier::forget_the_path(packet),
        Err(why) => return unjudged(why),
    };
    if is_v4_mapped(&packet.source) {
        count::packet(Counter::V4Mapped);
    }
    let control = lists::control();
    let lists = lists::Tables::under(control);
    // Each has an end of its own. One that they share would be handed an entry from each of them, and
    // two have none to hand on.
    match &decide(&lists, control, &packet) {
        Verdict::Unguarded => counted(&packet, &Verdict::Unguarded),
        Verdict::Clean if is_limited(&packet, control) => limited(&packet, control),
        Verdict::Clean => counted(&packet, &Verdict::Clean),
        verdict => {
            noted(ctx, &packet, verdict, &lists, control);
            if verdict.is_no_more_than_observed(&packet) && is_limited(&packet, control) {
                return limited(&packet, control);
            }
            counted(&packet, verdict)
        }
    }
}

#[inline(always)]
fn counted(packet: &Packet, verdict: &Verdict) -> u32 {
    count::packet(Counter::of_verdict(packet, verdict));
    if verdict.drops() { XDP_DROP } else { XDP_PASS }
}

/// Whether a packet opens one connection too many.
#[inline(always)]
fn is_limited(packet: &Packet, control: Control) -> bool {
    control.limits_syn() && opens_mail(packet) && limit::exceeds(packet)
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
