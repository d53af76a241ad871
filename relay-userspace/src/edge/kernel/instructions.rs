//! BPF instructions as numbers (RFC 9669), for programs of a few lines that measure others.

use std::os::fd::{FromRawFd, OwnedFd};

use relay_common::parse::Family;

pub(super) type Register = u8;
pub(super) const R0: Register = 0;
pub(super) const R1: Register = 1;
pub(super) const R2: Register = 2;
pub(super) const R3: Register = 3;
pub(super) const R4: Register = 4;
pub(super) const R5: Register = 5;
pub(super) const R10: Register = 10;

pub(super) const LOAD_U32: u8 = 0x61;
pub(super) const LOAD_U64: u8 = 0x79;
pub(super) const STORE_U32: u8 = 0x63;
pub(super) const STORE_U64: u8 = 0x7b;
pub(super) const ADD: u8 = 0x07;

pub(super) const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);
pub(super) const LOOKUP: u64 = instruction(0x85, 0, 0, 0, 1);
pub(super) const TAIL_CALL: u64 = instruction(0x85, 0, 0, 0, 12);

/// One instruction (section 3), as a little-endian or big-endian machine has it in memory.
pub(super) const fn instruction(
    code: u8,
    to: Register,
    from: Register,
    offset: i16,
    number: i32,
) -> u64 {
    let (o, n) = (offset.to_ne_bytes(), number.to_ne_bytes());
    let registers = if cfg!(target_endian = "big") { to << 4 | from } else { from << 4 | to };
    u64::from_ne_bytes([code, registers, o[0], o[1], n[0], n[1], n[2], n[3]])
}

pub(super) const fn set(to: Register, number: i32) -> u64 {
    instruction(0xb7, to, 0, 0, number)
}

pub(super) const fn copy(to: Register, from: Register) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

/// The first half of the load of a map (`source` 1) or of the address of its value (2), by the map's
/// descriptor.
pub(super) const fn map(to: Register, map: i32, source: u8) -> u64 {
    instruction(0x18, to, source, 0, map)
}

/// Where a source stands in a frame without VLAN tags.
pub(super) const fn source_at(family: Family) -> i16 {
    match family {
        Family::V4 => 14 + 12,
        Family::V6 => 14 + 8,
    }
}

/// The frame's beginning into R2, for a program in whose R1 the context is; too short a frame, in
/// which a source does not stand whole, passes.
pub(super) const fn source_or_pass(family: Family) -> [u64; 7] {
    [
        instruction(LOAD_U32, R2, R1, 0, 0),
        instruction(LOAD_U32, R3, R1, 4, 0),
        copy(R4, R2),
        instruction(ADD, R4, 0, 0, source_at(family) as i32 + 16),
        instruction(0xbd, R4, R3, 2, 0),
        set(R0, 2),
        EXIT,
    ]
}

/// The descriptor that a call of bpf(2) has returned.
pub(super) fn descriptor(made: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(made) }
}
