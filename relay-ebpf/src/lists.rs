//! The tables of entries, the map of touched sources, and the clock that entries expire by.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::cty::c_long;
use aya_ebpf::helpers::generated::bpf_loop;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap};
use relay_common::control::{Control, Slot, Table};
use relay_common::entry::{Entry, List};
use relay_common::layout;
use relay_common::packed::{self, Found, LINE_WORDS, Line, Place};
use relay_common::parse::{Family, Source};
use relay_common::touch::{self, Touch};
use relay_common::verdict::{Lists, Step};

use crate::control::Said;
use crate::cpu::Cpu;
use crate::verifier;

/// Keys in places where the compiler may write them in words: the verifier bears no word on the stack that
/// is not aligned.
#[repr(C, align(8))]
struct KeyV4 {
    key: Key<[u8; 4]>,
}

#[repr(C, align(8))]
struct KeyV6 {
    _before: u32,
    key: Key<[u64; 2]>,
}

/// The bytes of an [`Entry`], in words: a value is aligned to four.
type Value = [u32; Entry::SIZE / 4];
type Trie<A> = LpmTrie<A, Value>;
type Hosts<A> = HashMap<A, Value>;

/// Declares the tables of one place: their names are those of `relay_common::layout`.
macro_rules! tables {
    ($allow_v4:ident $allow_v6:ident $deny_v4:ident $deny_v6:ident $hosts_v4:ident $hosts_v6:ident
     $lines_v4:ident $lines_v6:ident) => {
        #[map]
        static $allow_v4: Trie<[u8; 4]> = Trie::with_max_entries(layout::ALLOW_ENTRIES, 0);
        #[map]
        static $allow_v6: Trie<[u64; 2]> = Trie::with_max_entries(layout::ALLOW_ENTRIES, 0);
        #[map]
        static $deny_v4: Trie<[u8; 4]> = Trie::with_max_entries(layout::DENY_ENTRIES, 0);
        #[map]
        static $deny_v6: Trie<[u64; 2]> = Trie::with_max_entries(layout::DENY_ENTRIES, 0);
        #[map]
        static $hosts_v4: Hosts<u32> =
            Hosts::with_max_entries(layout::DENY_ENTRIES, BPF_F_NO_PREALLOC);
        #[map]
        static $hosts_v6: Hosts<u64> =
            Hosts::with_max_entries(layout::DENY_ENTRIES, BPF_F_NO_PREALLOC);
        #[map]
        static $lines_v4: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
        #[map]
        static $lines_v6: Array<Line> = Array::with_max_entries(1, BPF_F_MMAPABLE);
    };
}

tables!(ALLOW_V4 ALLOW_V6 DENY_V4 DENY_V6 HOSTS_V4 HOSTS_V6 LINES_V4 LINES_V6);
tables!(FEED_A_ALLOW_V4 FEED_A_ALLOW_V6 FEED_A_DENY_V4 FEED_A_DENY_V6 FEED_A_HOSTS_V4 FEED_A_HOSTS_V6
        FEED_A_LINES_V4 FEED_A_LINES_V6);
tables!(FEED_B_ALLOW_V4 FEED_B_ALLOW_V6 FEED_B_DENY_V4 FEED_B_DENY_V6 FEED_B_HOSTS_V4 FEED_B_HOSTS_V6
        FEED_B_LINES_V4 FEED_B_LINES_V6);

#[map]
static TOUCHED_V6: Array<[u64; touch::words(Family::V6)]> =
    Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The kernel's tables, as one packet sees them.
pub(crate) struct Tables {
    said: Said,
    control: Control,
    cpu: Cpu,
}

impl Tables {
    #[inline(always)]
    pub(crate) fn under(said: Said, control: Control, cpu: Cpu) -> Self {
        Self { said, control, cpu }
    }

    /// The one line in which a host may stand.
    #[inline(always)]
    fn line(&self, table: Table, source: &Source, at: u32) -> Option<&Line> {
        match (table, self.control.slot(), source.family()) {
            (Table::Rows, _, Family::V4) => LINES_V4.get(at),
            (Table::Rows, _, Family::V6) => LINES_V6.get(at),
            (Table::Feeds, Slot::A, Family::V4) => FEED_A_LINES_V4.get(at),
            (Table::Feeds, Slot::A, Family::V6) => FEED_A_LINES_V6.get(at),
            (Table::Feeds, Slot::B, Family::V4) => FEED_B_LINES_V4.get(at),
            (Table::Feeds, Slot::B, Family::V6) => FEED_B_LINES_V6.get(at),
        }
    }

    /// What its line has no room for.
    #[inline(always)]
    fn spilled(&self, table: Table, source: &Source) -> Option<Entry> {
        let (slot, mut meaning) = (self.control.slot(), [0; 2]);
        let is_there = match source {
            Source::V4(address) => spilled_v4(table, slot, address.to_be(), &mut meaning),
            Source::V6 { network, .. } => spilled_v6(table, slot, network.to_be(), &mut meaning),
        };
        is_there.then(|| Entry::from_meaning(meaning))
    }
}

/// The hash behind a packed table. What is found is handed on in words ([`Entry::to_meaning`]): the
/// verifier bears no others in memory. Apart from the program of most packets, for few lines spill.
#[inline(never)]
fn spilled_v4(table: Table, slot: Slot, key: u32, meaning: &mut [u64; 2]) -> bool {
    // SAFETY: an element's memory stays one of this map while a program may look at it. It may be given
    // to another host meanwhile, whose denial is read then.
    let value = unsafe {
        match (table, slot) {
            (Table::Rows, _) => HOSTS_V4.get(key),
            (Table::Feeds, Slot::A) => FEED_A_HOSTS_V4.get(key),
            (Table::Feeds, Slot::B) => FEED_B_HOSTS_V4.get(key),
        }
    };
    read(value, meaning)
}

/// As [`spilled_v4`].
#[inline(never)]
fn spilled_v6(table: Table, slot: Slot, key: u64, meaning: &mut [u64; 2]) -> bool {
    // SAFETY: as there.
    let value = unsafe {
        match (table, slot) {
            (Table::Rows, _) => HOSTS_V6.get(key),
            (Table::Feeds, Slot::A) => FEED_A_HOSTS_V6.get(key),
            (Table::Feeds, Slot::B) => FEED_B_HOSTS_V6.get(key),
        }
    };
    read(value, meaning)
}

#[inline(always)]
fn read(value: Option<&Value>, meaning: &mut [u64; 2]) -> bool {
    let Some(words) = value else { return false };
    *meaning = Entry::from_words(*words).to_meaning();
    true
}

/// The marks of a family, of which any word is read without another lookup. The compiler knows that no
/// index is too great, the verifier of an older kernel would not.
struct Marks<F>(F);

impl<F: Fn(u32) -> u64> touch::Words for Marks<F> {
    #[inline(always)]
    fn word(&self, index: u32) -> u64 {
        (self.0)(verifier::another(index.into()) as u32)
    }
}

impl Lists for Tables {
    #[inline(always)]
    fn touched(&self, source: &Source) -> Touch {
        let are_prefixes = self.control.uses_prefixes(source.family());
        let touch = match source {
            Source::V4(_) => {
                let word = |index| self.said.touched_v4(index);
                Some(touch::of(&Marks(word), source, are_prefixes))
            }
            Source::V6 { .. } => TOUCHED_V6.get(0).map(|words| {
                let word = |index| words.get(index as usize).copied().unwrap_or(u64::MAX);
                touch::of(&Marks(word), source, are_prefixes)
            }),
        };
        let touch = touch.unwrap_or(Touch::ANY);
        let touch = verifier::forget_the_marks(touch, source);
        self.control.widened(touch, source.family())
    }

    #[inline(always)]
    fn host(&self, table: Table, source: &Source) -> Option<Entry> {
        let lines = self.control.lines(table, source.family());
        let place = Place::of(source, lines);
        let line = self.line(table, source, place.line)?;
        // SAFETY: a reference to a word. Volatile, so that they are read in this order.
        let number = match place.find(|word| unsafe { ptr::read_volatile(&line[word]) }) {
            Found::Meaning(number) => number,
            Found::Beside { word, shift } => {
                let beside = self.line(table, source, place.line + lines.count())?;
                packed::meaning_of(beside[word % LINE_WORDS] >> shift)
            }
            Found::Spilled => return self.spilled(table, source),
            Found::No => return None,
        };
        Some(self.said.meaning(number))
    }

    #[inline(always)]
    fn longest(&self, table: Table, list: List, source: &Source, prefix_len: u8) -> Option<Entry> {
        let len = u32::from(prefix_len);
        let value = match source {
            Source::V4(address) => {
                let key = KeyV4 { key: Key::new(len, address.to_be_bytes()) };
                let key = &key.key;
                match (table, self.control.slot(), list) {
                    (Table::Rows, _, List::Allow) => ALLOW_V4.get(key),
                    (Table::Rows, _, List::Deny) => DENY_V4.get(key),
                    (Table::Feeds, Slot::A, List::Allow) => FEED_A_ALLOW_V4.get(key),
                    (Table::Feeds, Slot::A, List::Deny) => FEED_A_DENY_V4.get(key),
                    (Table::Feeds, Slot::B, List::Allow) => FEED_B_ALLOW_V4.get(key),
                    (Table::Feeds, Slot::B, List::Deny) => FEED_B_DENY_V4.get(key),
                }
            }
            Source::V6 { network, interface } => {
                let halves = [network.to_be(), interface.to_be()];
                let key = KeyV6 { _before: 0, key: Key::new(len, halves) };
                let key = &key.key;
                match (table, self.control.slot(), list) {
                    (Table::Rows, _, List::Allow) => ALLOW_V6.get(key),
                    (Table::Rows, _, List::Deny) => DENY_V6.get(key),
                    (Table::Feeds, Slot::A, List::Allow) => FEED_A_ALLOW_V6.get(key),
                    (Table::Feeds, Slot::A, List::Deny) => FEED_A_DENY_V6.get(key),
                    (Table::Feeds, Slot::B, List::Allow) => FEED_B_ALLOW_V6.get(key),
                    (Table::Feeds, Slot::B, List::Deny) => FEED_B_DENY_V6.get(key),
                }
            }
        };
        value.map(|words| Entry::from_words(*words))
    }

    #[inline(always)]
    fn repeat<S: Step>(&self, steps_max: u32, walk: &mut S) {
        unsafe extern "C" fn step<S: Step>(_turn: u64, walk: *mut c_void) -> c_long {
            // SAFETY: the helper hands on what it was given below.
            c_long::from(unsafe { (*walk.cast::<S>()).step() })
        }
        let call = step::<S> as unsafe extern "C" fn(u64, *mut c_void) -> c_long;
        // SAFETY: the function has the form that the helper calls, and `walk` outlives the call.
        unsafe { bpf_loop(steps_max, call as *mut c_void, ptr::from_mut(walk).cast(), 0) };
    }

    #[inline(always)]
    fn now_s(&self) -> u32 {
        self.cpu.boot_s()
    }
}
