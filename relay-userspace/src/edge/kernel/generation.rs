//! The two generations of feeds: one in force, and an idle one that is filled to take its place.

use ipnet::IpNet;
use relay_common::control::{Kind, Place, Table as Side};
use relay_common::entry::{Entry, List, Scope};
use relay_common::parse::Family;

use super::grace;
use super::maps::{Maps, kernel};
use crate::edge::filter::FilterError;

impl Maps {
    /// The slot that no packet looks into.
    fn idle(&self) -> Place {
        Place::Feeds(self.control().slot().other())
    }

    pub(super) fn feeds(
        &self,
        each: &mut dyn FnMut(List, IpNet, Entry),
    ) -> Result<(), FilterError> {
        self.for_each(Place::Feeds(self.control().slot()), each)
    }

    pub(super) fn feed_clear(&mut self, at_most: usize) -> Result<bool, FilterError> {
        let mut left = at_most;
        for kind in Kind::ALL {
            for family in Family::ALL {
                let removed = self.table(self.idle(), kind, family).clear(left);
                let removed = removed.map_err(|error| kernel("to clear a list", error))?;
                // A packed table removes whole lines, and so a few more than it was asked to.
                left = left.saturating_sub(removed);
                if left == 0 {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    pub(super) fn feed_fill(
        &mut self,
        list: List,
        entries: &[(IpNet, Entry)],
    ) -> Result<(), FilterError> {
        self.put_into(self.idle(), list, entries)
    }

    pub(super) fn feed_count(&self) -> Result<u64, FilterError> {
        let mut count = 0;
        for kind in Kind::ALL {
            for family in Family::ALL {
                let counted = self.table(self.idle(), kind, family).count();
                count += counted.map_err(|error| kernel("to count entries", error))?;
            }
        }
        Ok(count)
    }

    pub(super) fn feed_flip(&mut self, guarded: Scope) -> Result<(), FilterError> {
        let slot = self.control().slot().other();
        let mut control = self.control().with_slot(slot).with_guarded(guarded);
        for kind in Kind::ALL {
            for family in Family::ALL {
                let used = self.holds_any(Place::Feeds(slot), kind, family)?;
                control = control.with_used(Side::Feeds, kind, family, used);
            }
        }
        self.set_control(control);
        // Whoever clears the other slot now must take nothing from under a packet.
        grace::wait();
        Ok(())
    }
}
