//! The prefixes of one family: the smallest set that covers what was said, and what was said.
//!
//! What was said is needed once some of it is to be left out: a wide prefix must not take the
//! narrower ones with it that it swallowed, nor a half the other half that it was joined with. As
//! few lists say much twice, it is kept only where it is not the set itself.

use std::slice;

use super::packed::Packed;
use crate::feed::span::Span;

/// Sorted by address: none of `kept` within another, no two of them halves of a wider one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::feed) struct Set<P> {
    pub(in crate::feed) kept: Vec<P>,
    /// What was said within those of `kept` that stand for more than themselves, each once.
    said: Vec<P>,
}

impl<P> Default for Set<P> {
    fn default() -> Self {
        Self { kept: Vec::new(), said: Vec::new() }
    }
}

impl<P: Packed> Set<P> {
    /// The set of these prefixes, in any order.
    pub(super) fn of(mut said: Vec<P>) -> Self {
        said.sort_unstable();
        said.dedup();
        // Whatever swallows another, or makes up a whole with it, does so with its neighbour.
        let is_smallest = said.windows(2).all(|pair| {
            let (one, next) = (pair[0].span(), pair[1].span());
            !one.covers(next) && one.joined(next).is_none()
        });
        if is_smallest {
            said.shrink_to_fit();
            return Self { kept: said, said: Vec::new() };
        }
        let kept = smallest(&said);
        keep_groups(&kept, &mut said);
        Self { kept, said }
    }

    /// Everything that was said, each prefix once, by address.
    pub(super) fn said(&self) -> impl Iterator<Item = Span> {
        self.kept.iter().flat_map(|top| self.group(top)).map(|key| key.span())
    }

    /// The prefix of the set that this one is, or lies in: whatever covers it begins no later and
    /// is no longer; of the prefixes that do, as none overlap, only the last can reach so far.
    pub(super) fn covering(&self, span: Span) -> Option<Span> {
        self.position(span).map(|at| self.kept[at].span())
    }

    fn position(&self, span: Span) -> Option<usize> {
        let after = self.kept.partition_point(|key| key.span() <= span);
        let at = after.checked_sub(1)?;
        self.kept[at].span().covers(span).then_some(at)
    }

    /// What was said that covers this one, widest first.
    pub(super) fn said_over(&self, span: Span) -> impl Iterator<Item = Span> {
        let top = self.position(span).map(|at| &self.kept[at]);
        top.into_iter().flat_map(move |top| {
            let group = self.group(top);
            let wider = (top.span().len..=span.len).map(move |len| span.widened(len));
            wider.filter(|&wider| group.binary_search(&P::pack(wider)).is_ok())
        })
    }

    /// Removes some of what was said. What else was said is covered as before.
    pub(super) fn leave_out(&mut self, gone: &[Span]) {
        let mut hit: Vec<usize> = gone.iter().filter_map(|&span| self.position(span)).collect();
        hit.sort_unstable();
        let mut hit = hit.into_iter().peekable();
        let mut rest = Self { kept: Vec::with_capacity(self.kept.len()), said: Vec::new() };
        for (at, top) in self.kept.iter().enumerate() {
            let group = self.group(top);
            if hit.peek() != Some(&at) {
                rest.kept.push(*top);
                rest.said.extend_from_slice(if group.len() > 1 { group } else { &[] });
                continue;
            }
            while hit.next_if_eq(&at).is_some() {}
            let stays = group.iter().copied().filter(|key| !gone.contains(&key.span()));
            // It lies within the top, so the order holds, and none of it joins what is beside.
            let Self { kept, said } = Self::of(stays.collect());
            rest.kept.extend(kept);
            rest.said.extend(said);
        }
        *self = rest;
    }

    /// What was said that this prefix of the set stands for.
    fn group<'a>(&'a self, top: &'a P) -> &'a [P] {
        let from = &self.said[self.said.partition_point(|key| key < top)..];
        let group = &from[..from.partition_point(|key| top.span().covers(key.span()))];
        if group.is_empty() { slice::from_ref(top) } else { group }
    }
}

/// Drops what lies within another, joins halves. What is kept so far is sorted and disjoint and has
/// no two halves, so each next prefix can only lie within the last one kept, or make up a whole
/// with it, and then that one with the one before.
fn smallest<P: Packed>(said: &[P]) -> Vec<P> {
    let mut kept: Vec<P> = Vec::with_capacity(said.len());
    for key in said {
        let mut span = key.span();
        if kept.last().is_some_and(|last| last.span().covers(span)) {
            continue;
        }
        while let Some(whole) = kept.last().and_then(|last| last.span().joined(span)) {
            span = whole;
            kept.pop();
        }
        kept.push(P::pack(span));
    }
    kept.shrink_to_fit();
    kept
}

/// Removes from what was said, in order, what stands in the set by itself.
fn keep_groups<P: Packed>(kept: &[P], said: &mut Vec<P>) {
    let (mut from, mut to) = (0, 0);
    for top in kept {
        let covered = said[from..].iter().take_while(|key| top.span().covers(key.span())).count();
        if covered > 1 {
            said.copy_within(from..from + covered, to);
            to += covered;
        }
        from += covered;
    }
    said.truncate(to);
    said.shrink_to_fit();
}
