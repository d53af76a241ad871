//! Prefixes in as few bytes as sort well.

use crate::feed::span::Span;

/// A span of a known family. Sorts as the span does.
pub(in crate::feed) trait Packed: Copy + Ord {
    fn pack(span: Span) -> Self;
    fn span(self) -> Span;
}

/// The address above the length, in 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::feed) struct V4(u64);

impl Packed for V4 {
    fn pack(span: Span) -> Self {
        Self(((span.bits >> 96) as u64) << 8 | u64::from(span.len))
    }

    fn span(self) -> Span {
        Span { bits: u128::from(self.0 >> 8) << 96, len: self.0 as u8 }
    }
}

/// The address in network order, then the length: 17 bytes, where a pair of numbers would be padded
/// to 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::feed) struct V6([u8; 17]);

impl Packed for V6 {
    fn pack(span: Span) -> Self {
        let mut bytes = [0; 17];
        bytes[..16].copy_from_slice(&span.bits.to_be_bytes());
        bytes[16] = span.len;
        Self(bytes)
    }

    fn span(self) -> Span {
        let [address @ .., len] = self.0;
        Span { bits: u128::from_be_bytes(address), len }
    }
}
