//! What the kernel's own maps cost: a program that looks the source up in one map and drops what it
//! finds there. It knows no scope, no expiry and no rule, and is what a filter is compared with.

use std::io;
use std::os::fd::AsFd;

use ipnet::IpNet;
use relay_common::control::Kind;
use relay_common::entry::Entry;
use relay_common::parse::Family;

use super::bpf::{self, Attr, Command};
use super::drive::Program;
use super::instructions::{
    self, ADD, EXIT, LOAD_U32, LOAD_U64, LOOKUP, R0, R1, R2, R3, R4, R10, STORE_U32, STORE_U64,
    copy, instruction, map, set, source_at, source_or_pass,
};
use super::table::Table;

const MAP_TYPE_HASH: u32 = 1;
const MAP_TYPE_LPM: u32 = 11;
const NO_PREALLOC: u32 = 1;

/// The map that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// A hash of hosts: /32 or /64.
    Hash,
    /// An LPM trie, of hosts and prefixes alike.
    Trie,
}

#[repr(C)]
struct CreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

// SAFETY: integers without padding between or behind them.
unsafe impl Attr for CreateAttr {}

impl Program {
    /// Looks sources of one family up in one map that holds these entries.
    ///
    /// # Errors
    /// No privilege or no BPF, or a prefix that such a map cannot hold.
    pub fn looking_up(
        plain: Plain,
        family: Family,
        entries: &[(IpNet, Entry)],
    ) -> io::Result<Self> {
        let (map_type, kind) = match plain {
            Plain::Hash => (MAP_TYPE_HASH, Kind::Hosts),
            Plain::Trie => (MAP_TYPE_LPM, Kind::Deny),
        };
        let address_len = match (plain, family) {
            (_, Family::V4) => 4,
            (Plain::Hash, Family::V6) => 8,
            (Plain::Trie, Family::V6) => 16,
        };
        let mut attr = CreateAttr {
            map_type,
            key_size: if plain == Plain::Trie { 4 + address_len } else { address_len },
            value_size: Entry::SIZE as u32,
            max_entries: entries.len() as u32,
            flags: NO_PREALLOC,
        };
        // SAFETY: the command reads nothing but `attr`.
        let entries_map =
            instructions::descriptor(unsafe { bpf::call(Command::MapCreate, &mut attr) }?);
        let table = Table::new(entries_map.try_clone()?, kind, family);
        let own_len =
            |&(net, entry): &(IpNet, Entry)| (net, Entry { prefix_len: net.prefix_len(), ..entry });
        table.put_all(&entries.iter().map(own_len).collect::<Vec<_>>())?;
        Self::load(&code(plain, family, bpf::number(entries_map.as_fd()) as i32))
    }
}

fn code(plain: Plain, family: Family, entries: i32) -> Vec<u64> {
    let source_at = source_at(family);
    let mut key = Vec::new();
    match (plain, family) {
        (_, Family::V4) => key.extend([
            instruction(LOAD_U32, R4, R2, source_at, 0),
            instruction(STORE_U32, R10, R4, -4, 0),
        ]),
        (Plain::Hash, Family::V6) => key.extend([
            instruction(LOAD_U64, R4, R2, source_at, 0),
            instruction(STORE_U64, R10, R4, -8, 0),
        ]),
        // Behind a length of four bytes, so aligned to no more than that.
        (Plain::Trie, Family::V6) => {
            for word in 0..4 {
                key.push(instruction(LOAD_U32, R4, R2, source_at + 4 * word, 0));
                key.push(instruction(STORE_U32, R10, R4, -16 + 4 * word, 0));
            }
        }
    }
    let address_at = match (plain, family) {
        (_, Family::V4) => -4,
        (Plain::Hash, Family::V6) => -8,
        (Plain::Trie, Family::V6) => -16,
    };
    let key_at = if plain == Plain::Trie { address_at - 4 } else { address_at };
    if plain == Plain::Trie {
        key.push(set(R4, family.bits().into()));
        key.push(instruction(STORE_U32, R10, R4, key_at, 0));
    }
    let lookup = [
        map(R1, entries, 1),
        0,
        copy(R2, R10),
        instruction(ADD, R2, 0, 0, key_at.into()),
        LOOKUP,
        copy(R3, R0),
        set(R0, 2),
        instruction(0x15, R3, 0, 1, 0),
        set(R0, 1),
        EXIT,
    ];
    let mut code = source_or_pass(family).to_vec();
    code.extend(key);
    code.extend(lookup);
    code
}
