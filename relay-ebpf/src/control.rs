//! What userspace says to the program.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use relay_common::control::Control;
use relay_common::entry::Entry;
use relay_common::layout::{
    CONTROL_WORDS, MEANING_WORDS, MEANINGS_AT, SETTINGS_AT, Settings, TOUCHED_V4_AT,
};
use relay_common::packed::MEANINGS;

#[map]
static CONTROL: Array<[u64; CONTROL_WORDS]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The map, of which any part is read without another lookup.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    words: &'static [u64; CONTROL_WORDS],
}

impl Said {
    /// Never `None`, which the verifier does not know.
    #[inline(always)]
    pub(crate) fn look_up() -> Option<Self> {
        CONTROL.get(0).map(|words| Self { words })
    }

    /// Once a packet.
    #[inline(always)]
    pub(crate) fn control(self) -> Control {
        Control::from_word(self.words[0])
    }

    #[inline(always)]
    pub(crate) fn settings(self) -> Settings {
        Settings::from_words([self.words[SETTINGS_AT], self.words[SETTINGS_AT + 1]])
    }

    /// A word of the marks of IPv4.
    #[inline(always)]
    pub(crate) fn touched_v4(self, index: u32) -> u64 {
        self.words.get(TOUCHED_V4_AT + index as usize).copied().unwrap_or(u64::MAX)
    }

    /// What a number in a packed table stands for.
    #[inline(always)]
    pub(crate) fn meaning(self, number: u32) -> Entry {
        let at = MEANINGS_AT + (number & (MEANINGS - 1)) as usize * MEANING_WORDS;
        Entry::from_meaning([self.words[at], self.words[at + 1]])
    }
}
