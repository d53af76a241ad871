//! The bytes of the packet, as the verifier lets a program read them.

use aya_ebpf::programs::XdpContext;
use relay_common::parse::Frame;

/// The farthest byte a header can end at: Ethernet, two tags, IPv6 and eight extension headers of
/// the greatest length stay below. The verifier wants the bound said.
const OFFSET_MAX: usize = 0x7fff;

/// The linear part of the packet, between the two pointers that the kernel gave.
pub(crate) struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }
}

impl Frame for Linear {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > OFFSET_MAX {
            return None;
        }
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: [at, at + N) lies within the packet by the check above, which is also the form
        // in which the verifier recognises it; an array of bytes has no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }
}
