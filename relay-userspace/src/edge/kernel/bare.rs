//! The least that a list can cost: a program that reads a packet's source, looks at one word of a
//! table where the source leads to, and drops. It knows nobody; what it does every list has to do.

use std::io;
use std::os::fd::AsFd;

use relay_common::parse::Family;

use super::bpf;
use super::drive::{Program, one_value};
use super::instructions::{
    EXIT, LOAD_U32, LOAD_U64, R0, R2, R4, R5, instruction, map, set, source_at, source_or_pass,
};

/// 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, section 6.4): spreads
/// sources that lie side by side.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Words of the largest table, as a power of two.
const WORDS_LOG2_MAX: u32 = 25;

impl Program {
    /// Drops what comes, behind one load from a table of so many words of 64 bits, a power of two;
    /// behind none where there is no table.
    ///
    /// # Errors
    /// The size is no power of two or too large; no privilege, or no BPF.
    pub fn of_one_load(family: Family, words: Option<u32>) -> io::Result<Self> {
        let Some(words) = words else { return Self::load(&code(family, None)) };
        if !words.is_power_of_two() || words == 1 || words.ilog2() > WORDS_LOG2_MAX {
            let what = "a table has a power of two of words, from two on";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let table = one_value(&mut vec![0; words as usize * 8])?;
        let number = bpf::number(table.as_fd()) as i32;
        Self::load(&code(family, Some((number, words.ilog2()))))
    }
}

fn code(family: Family, table: Option<(i32, u32)>) -> Vec<u64> {
    let load_source = match family {
        Family::V4 => LOAD_U32,
        Family::V6 => LOAD_U64,
    };
    let mut code = source_or_pass(family).to_vec();
    code.push(instruction(load_source, R0, R2, source_at(family), 0));
    if let Some((table, words_log2)) = table {
        code.extend([
            map(R4, SPREAD as u32 as i32, 0),
            instruction(0, 0, 0, 0, (SPREAD >> 32) as i32),
            // The product's upper bits number a word.
            instruction(0x2f, R0, R4, 0, 0),
            instruction(0x77, R0, 0, 0, 64 - words_log2 as i32),
            instruction(0x67, R0, 0, 0, 3),
            map(R5, table, 2),
            0,
            instruction(0x0f, R5, R0, 0, 0),
            instruction(LOAD_U64, R0, R5, 0, 0),
            // The answer depends on it: nothing is ever written to the table.
            instruction(0x15, R0, 0, 2, 0),
            set(R0, 2),
            EXIT,
        ]);
    }
    code.extend([set(R0, 1), EXIT]);
    code
}
