//! The XDP program: a thin shell over relay-common, which parses and judges. Here are only the
//! maps, the packet's bytes, the clock and the counters.
//!
//! Built for the BPF target by relay-userspace/build.rs. On any other target it compiles to an
//! empty program, so that clippy and editors see it.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(not(target_arch = "bpf"), allow(dead_code))]

mod control;
mod count;
mod cpu;
mod frame;
mod limit;
mod lists;
mod log;
mod tell;
mod verifier;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use relay_common::control::Control;
use relay_common::entry::{Entry, Reason, Scope};
use relay_common::event::Fate;
use relay_common::parse::{self, Family, Packet, Unjudged};
use relay_common::totals::{Counter, Pass, is_v4_mapped};
use relay_common::verdict::{Verdict, decide};

use control::Said;
use cpu::Cpu;

/// `frags`: frames that do not fit a page arrive in pieces, and drivers refuse a program that does
/// not say it can bear that. The headers are in the first piece.
#[xdp(frags)]
#[inline(always)]
fn postern(ctx: XdpContext) -> u32 {
    let (Some(said), Some(cpu)) = (Said::look_up(), Cpu::look_up()) else { return XDP_PASS };
    let frame = frame::Linear::of(&ctx);
    // All that follows stands in the program once for each family, which is known in each.
    match parse::ethernet(&frame) {
        Ok((Family::V4, offset)) => judge(&ctx, said, cpu, parse::ipv4(&frame, offset)),
        Ok((Family::V6, offset)) => judge(&ctx, said, cpu, parse::ipv6(&frame, offset)),
        Err(why) => unjudged(why, cpu),
    }
}

#[inline(always)]
fn unjudged(why: Unjudged, cpu: Cpu) -> u32 {
    cpu.count(Counter::of_unjudged(why));
    XDP_PASS
}

#[inline(always)]
fn judge(ctx: &XdpContext, said: Said, cpu: Cpu, parsed: Result<Packet, Unjudged>) -> u32 {
    let packet = match parsed {
        Ok(packet) => verifier::forget_the_path(packet),
        Err(why) => return unjudged(why, cpu),
    };
    if is_v4_mapped(&packet.source) {
        cpu.count(Counter::V4Mapped);
    }
    let control = said.control();
    let seen = Seen { packet, control, said, cpu };
    match decide(&lists::Tables::under(said, control, cpu), control, &packet) {
        Verdict::Denied(entry) => seen.dropped(ctx, &entry),
        Verdict::Unguarded => seen.passed(Pass::Unguarded),
        Verdict::Clean if seen.is_limited() => seen.limited(),
        Verdict::Clean => seen.passed(Pass::Clean),
        Verdict::Allowed(entry) => seen.allowed(&entry),
        Verdict::Observed(entry) => seen.observed(&entry),
    }
}

/// A packet, and what there is to judge it by.
struct Seen {
    packet: Packet,
    control: Control,
    said: Said,
    cpu: Cpu,
}

impl Seen {
    #[inline(always)]
    fn passed(&self, why: Pass) -> u32 {
        self.cpu.count(Counter::of_passed(&self.packet, why));
        XDP_PASS
    }

    #[inline(always)]
    fn allowed(&self, entry: &Entry) -> u32 {
        count::hit(entry.rule, self.cpu.boot_s());
        self.passed(Pass::Allowed)
    }

    #[inline(always)]
    fn dropped(&self, ctx: &XdpContext, entry: &Entry) -> u32 {
        let now_s = self.cpu.boot_s();
        count::hit(entry.rule, now_s);
        self.tell(Fate::Dropped, entry, now_s);
        log::dropped(ctx, &self.packet, entry);
        self.cpu.count(Counter::of_dropped(&self.packet, entry));
        XDP_DROP
    }

    /// Passes, if it does not open one connection too many.
    #[inline(always)]
    fn observed(&self, entry: &Entry) -> u32 {
        let now_s = self.cpu.boot_s();
        count::observed(entry.rule, now_s);
        self.tell(Fate::Observed, entry, now_s);
        // Where all is observed, so is the limit.
        if !entry.scope.intersects(self.packet.class) && self.is_limited() {
            return self.limited();
        }
        self.cpu.count(Counter::of_observed(&self.packet, entry));
        XDP_PASS
    }

    /// Whether the packet opens one connection too many.
    #[inline(always)]
    fn is_limited(&self) -> bool {
        self.control.limits_syn()
            && opens_mail(&self.packet)
            && limit::exceeds(&self.packet.source, self.said, self.cpu)
    }

    /// Drops a packet that opens one connection too many, unless the filter only observes.
    #[inline(always)]
    fn limited(&self) -> u32 {
        let observed = self.control.observes();
        self.cpu.count(Counter::of_limit(self.packet.source.family(), observed));
        let fate = if observed { Fate::LimitObserved } else { Fate::Limited };
        self.tell(fate, &Entry::new(Scope::NONE, Reason::Manual, 0), self.cpu.boot_s());
        if observed { XDP_PASS } else { XDP_DROP }
    }

    /// Tells whoever wants to know what became of the packet, by which entry.
    #[inline(always)]
    fn tell(&self, fate: Fate, entry: &Entry, now_s: u32) {
        if !self.control.tells() {
            return;
        }
        if self.cpu.may_tell(self.said.settings(), now_s) {
            tell::of(&self.packet, fate, entry, self.cpu);
        } else {
            self.cpu.count(Counter::EventLeftOut);
        }
    }
}

/// Whether a packet opens a connection to a mail port.
#[inline(always)]
fn opens_mail(packet: &Packet) -> bool {
    packet.class.intersects(Scope::SMTP) && packet.opens_connection()
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
