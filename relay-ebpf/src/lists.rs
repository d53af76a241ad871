//! The allow and deny tries, and the clock that entries expire by.

use core::cell::Cell;

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use relay_common::entry::{Entry, List, Scope};
use relay_common::layout;
use relay_common::parse::Source;
use relay_common::verdict::Lists;

type Trie<A> = LpmTrie<A, [u8; Entry::SIZE]>;

#[map]
static ALLOW_V4: Trie<[u8; 4]> = Trie::with_max_entries(layout::ALLOW_ENTRIES, 0);
#[map]
static ALLOW_V6: Trie<[u8; 16]> = Trie::with_max_entries(layout::ALLOW_ENTRIES, 0);
#[map]
static DENY_V4: Trie<[u8; 4]> = Trie::with_max_entries(layout::DENY_ENTRIES, 0);
#[map]
static DENY_V6: Trie<[u8; 16]> = Trie::with_max_entries(layout::DENY_ENTRIES, 0);
#[map]
static GUARDED: Array<u32> = Array::with_max_entries(1, 0);

/// The scope that any deny entry speaks about; nothing while userspace has not said.
#[inline(always)]
pub(crate) fn guarded() -> Scope {
    GUARDED.get(0).map_or(Scope::NONE, |&word| layout::guarded_scope(word))
}

/// The kernel's tries, with the clock read at most once a packet.
#[derive(Default)]
pub(crate) struct Tries {
    /// 0 = not read yet.
    now_s: Cell<u32>,
}

impl Tries {
    /// The second to write down as a rule's latest hit.
    #[inline(always)]
    pub(crate) fn hit_s(&self) -> u32 {
        self.now_s()
    }
}

impl Lists for Tries {
    #[inline(always)]
    fn longest(&self, list: List, source: &Source, prefix_len: u8) -> Option<Entry> {
        let prefix_len = u32::from(prefix_len);
        let value = match (list, source) {
            (List::Allow, Source::V4(ip)) => ALLOW_V4.get(Key::new(prefix_len, *ip)),
            (List::Deny, Source::V4(ip)) => DENY_V4.get(Key::new(prefix_len, *ip)),
            (List::Allow, Source::V6(ip)) => ALLOW_V6.get(Key::new(prefix_len, *ip)),
            (List::Deny, Source::V6(ip)) => DENY_V6.get(Key::new(prefix_len, *ip)),
        };
        value.map(|bytes| Entry::from_bytes(*bytes))
    }

    #[inline(always)]
    fn now_s(&self) -> u32 {
        if self.now_s.get() == 0 {
            // SAFETY: the helper takes nothing and touches nothing.
            let now_ns = unsafe { bpf_ktime_get_boot_ns() };
            self.now_s.set((now_ns / 1_000_000_000) as u32);
        }
        self.now_s.get()
    }
}
