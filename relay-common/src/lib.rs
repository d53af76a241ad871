//! What the kernel program and userspace must agree on to the bit: the vocabulary of list
//! entries, the layout of the maps, the parsing of headers, and the verdict on a packet.
//!
//! No I/O, no allocation, no clock: the time and the bytes are arguments. The same functions run
//! inside the XDP program, behind `postern explain`, and as the oracle of the tests.
#![no_std]
#![forbid(unsafe_code)]

pub mod control;
pub mod entry;
pub mod event;
pub mod layout;
pub mod limit;
pub mod packed;
pub mod parse;
pub mod totals;
pub mod touch;
pub mod verdict;
