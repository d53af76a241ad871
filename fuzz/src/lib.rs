//! What must hold for any bytes at all, one module for each fuzz target.
//!
//! Nothing here needs libFuzzer: `relay-core/tests/fuzz_corpus.rs` includes this file and replays
//! the committed corpora, so that what was once found stays found on stable Rust.

pub mod address;
pub mod command;
pub mod framing;
pub mod reply;
pub mod session;

/// Cuts bytes into pieces of 1 to 16 octets, as `seed` has it.
fn pieces(mut bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed) + 1;
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (state >> 28) as usize + 1;
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Whether each CR stands before a LF, and each LF behind a CR.
fn has_crlf_alone(bytes: &[u8]) -> bool {
    let ends = [b"\0", bytes, b"\0"].concat();
    ends.windows(2).all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n'))
}
