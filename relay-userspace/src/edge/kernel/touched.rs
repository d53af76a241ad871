//! The filters of touched sources: which sources a packet's lookup may leave out.

use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use relay_common::control::{Kind, Place, Table as Side};
use relay_common::entry::List;
use relay_common::layout::WINDOWS_AT;
use relay_common::parse::Family;
use relay_common::touch::{Marked, Marks, Window, Windows};

use super::grace;
use super::maps::{Maps, kind_of};
use super::words::Words;
use crate::edge::filter::{FilterError, MapSizes};

/// The filters of both families, mapped into memory.
#[derive(Debug)]
pub(super) struct Touched {
    /// In the order of [`layout::TOUCHED`](relay_common::layout::TOUCHED).
    filters: Vec<Filter>,
    /// The map of the control word, of which this has the word beside it.
    control: Words,
}

#[derive(Debug)]
struct Filter {
    words: Words,
    family: Family,
    marked: Marked,
    /// Marks that were new to it, since it was last made.
    marks: AtomicU64,
}

/// Room for the entries of rows, and of two generations of feeds while one follows the other.
pub(super) fn smallest(marked: Marked, sizes: &MapSizes) -> Window {
    let [allow, deny, feeds_allow, feeds_deny] =
        [sizes.allow, sizes.deny, sizes.feeds_allow, sizes.feeds_deny].map(u64::from);
    let entries = match marked {
        Marked::Hosts => deny + 2 * feeds_deny,
        Marked::Networks => allow + deny + 2 * (feeds_allow + feeds_deny),
    };
    Window::for_entries(marked, entries)
}

impl Touched {
    /// `filters` in the order of [`layout::TOUCHED`](relay_common::layout::TOUCHED). What an
    /// earlier process has left in them stays.
    pub(super) fn new(
        filters: impl IntoIterator<Item = (Family, Marked, Words)>,
        control: Words,
        sizes: &MapSizes,
    ) -> Self {
        let filter =
            |(family, marked, words)| Filter { words, family, marked, marks: AtomicU64::new(0) };
        let touched = Self { filters: filters.into_iter().map(filter).collect(), control };
        for filter in &touched.filters {
            let (family, marked) = (filter.family, filter.marked);
            let window = touched.windows().of(family, marked);
            if window.words() == 1 {
                touched.set_window(filter, smallest(marked, sizes));
            } else {
                // Each mark has up to four bits of its own.
                let range = window.start()..window.start() + window.words();
                let bits =
                    range.map(|at| u64::from(filter.words.get(at).count_ones())).sum::<u64>();
                filter.marks.store(bits.div_ceil(4), Ordering::Relaxed);
            }
        }
        touched
    }

    pub(super) fn windows(&self) -> Windows {
        Windows::from_word(self.control.get(WINDOWS_AT))
    }

    fn set_window(&self, filter: &Filter, window: Window) {
        let windows = self.windows().with(filter.family, filter.marked, window);
        self.control.set(WINDOWS_AT, windows.word());
    }

    fn filter(&self, family: Family, marked: Marked) -> &Filter {
        let found = self.filters.iter().find(|it| (it.family, it.marked) == (family, marked));
        found.expect("there is one of each")
    }

    pub(super) fn word(&self, family: Family, marked: Marked, index: u32) -> u64 {
        self.filter(family, marked).words.get(index)
    }

    /// Lets every source that a prefix covers look; says whether marks are enough for that.
    fn mark(&self, kind: Kind, prefix: IpNet) -> bool {
        let (family, marks) = marks_of(kind, prefix);
        let filter = self.filter(family, Marked::by(kind));
        let mut window = self.windows().of(family, filter.marked);
        marks.each(|mark| {
            if window.is_full(filter.marked, filter.marks.load(Ordering::Relaxed)) {
                window = self.doubled(filter, window);
            }
            let at = mark.index(window);
            if filter.words.get(at) & mark.bits != mark.bits {
                filter.words.mark(at, mark.bits);
                filter.marks.fetch_add(1, Ordering::Relaxed);
            }
        });
        marks != Marks::Everything
    }

    /// Has each word of a window stand for two; the same window where there is no room.
    fn doubled(&self, filter: &Filter, window: Window) -> Window {
        let Some(doubled) = window.doubled() else { return window };
        let doubled = doubled.in_other_half_of(window);
        // Whatever packet still looks into that half must be through.
        grace::wait();
        for at in 0..window.words() {
            let word = filter.words.get(window.start() + at);
            filter.words.set(doubled.start() + 2 * at, word);
            filter.words.set(doubled.start() + 2 * at + 1, word);
        }
        self.set_window(filter, doubled);
        doubled
    }

    /// Puts other words in force, in a window of their own.
    fn replace(&self, filter: &Filter, draft: Draft) {
        let in_force = self.windows().of(filter.family, filter.marked);
        let words = || (0..).zip(&draft.words);
        let is_same = |(at, &word)| filter.words.get(in_force.start() + at) == word;
        filter.marks.store(draft.marks, Ordering::Relaxed);
        if draft.window.words() == in_force.words() && words().all(is_same) {
            return;
        }
        let window = draft.window.in_other_half_of(in_force);
        grace::wait();
        words().for_each(|(at, &word)| filter.words.set(window.start() + at, word));
        self.set_window(filter, window);
    }
}

/// A filter in the making, in memory of ours.
struct Draft {
    window: Window,
    words: Vec<u64>,
    marks: u64,
}

impl Draft {
    fn new(window: Window) -> Self {
        Self { window, words: vec![0; window.words() as usize], marks: 0 }
    }

    fn mark(&mut self, marks: Marks) {
        // Its first half, so that a word's index is its place in ours.
        let window = self.window;
        marks.each(|mark| {
            let word = &mut self.words[mark.index(window) as usize];
            self.marks += u64::from(*word & mark.bits != mark.bits);
            *word |= mark.bits;
        });
    }

    /// As small as its marks permit.
    fn folded(mut self, marked: Marked) -> Self {
        while let Some(half) = self.window.halved()
            && !half.is_full(marked, self.marks)
        {
            self.words = self.words.chunks_exact(2).map(|pair| pair[0] | pair[1]).collect();
            self.window = half;
        }
        self
    }
}

impl Maps {
    /// Lets every source that a prefix covers look.
    pub(super) fn touch(&self, kind: Kind, prefix: IpNet) {
        if !self.touched.mark(kind, prefix) {
            self.set_control(self.control().with_every_v6_looks(true));
        }
    }

    /// Makes the filters of touched sources what these prefixes call for, and says which tables of
    /// rows hold nothing.
    pub(super) fn retouch(
        &mut self,
        prefixes: &mut dyn Iterator<Item = (List, IpNet)>,
    ) -> Result<(), FilterError> {
        let sizes = self.sizes();
        let draft = |it: &Filter| Draft::new(smallest(it.marked, &sizes).largest());
        let mut drafts: Vec<Draft> = self.touched.filters.iter().map(draft).collect();
        let mut everything = false;
        for (list, prefix) in prefixes {
            let prefix = prefix.trunc();
            let kind = kind_of(list, prefix);
            let (family, marks) = marks_of(kind, prefix);
            everything |= marks == Marks::Everything;
            let of = (family, Marked::by(kind));
            let at = self.touched.filters.iter().position(|it| (it.family, it.marked) == of);
            drafts[at.expect("there is one of each")].mark(marks);
        }
        for (filter, draft) in self.touched.filters.iter().zip(drafts) {
            self.touched.replace(filter, draft.folded(filter.marked));
        }
        let mut control = self.control().with_every_v6_looks(everything);
        for kind in Kind::ALL {
            for family in Family::ALL {
                let used = self.holds_any(Place::Rows, kind, family)?;
                control = control.with_used(Side::Rows, kind, family, used);
            }
        }
        self.set_control(control);
        Ok(())
    }
}

fn marks_of(kind: Kind, prefix: IpNet) -> (Family, Marks) {
    let (family, network) = match prefix {
        IpNet::V4(net) => (Family::V4, net.addr().to_bits().into()),
        IpNet::V6(net) => (Family::V6, (net.addr().to_bits() >> 64) as u64),
    };
    (family, Marks::of(family, network, prefix.prefix_len(), kind))
}
