//! What has to be written so that the maps hold what the lists call for. Pure.

use std::cmp::Ordering;

use ipnet::IpNet;
use relay_common::entry::{Entry, List};

use super::clock::Now;
use super::wanted::Desired;

/// Expiries in the maps may differ by this from what is due: rounding and slewed clocks.
const EXPIRY_TOLERANCE_S: u32 = 1;

/// A prefix to be written anew.
pub(super) struct Repair {
    pub(super) prefix: IpNet,
    /// Nobody asked for the difference; a moved clock explains the others.
    pub(super) drift: bool,
}

/// Walks what is held and what is desired side by side. `held` is sorted by prefix.
pub(super) fn repairs(
    desired: &Desired,
    list: List,
    held: &[(IpNet, Entry)],
    now: Now,
) -> Vec<Repair> {
    let mut repairs = Vec::new();
    let mut held = held.iter().peekable();
    let mut wanted = desired
        .of_list(list)
        .filter_map(|(prefix, claim)| claim.entry(prefix, now).map(|entry| (prefix, entry)))
        .peekable();
    loop {
        let order = match (held.peek(), wanted.peek()) {
            (None, None) => return repairs,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((held, _)), Some((wanted, _))) => held.cmp(wanted),
        };
        let is = if order.is_le() { held.next() } else { None };
        let want = if order.is_ge() { wanted.next() } else { None };
        match (is, want) {
            (Some((prefix, is)), Some((_, want))) => {
                let other = Entry { expires_s: is.expires_s, ..want } != *is;
                if other || expiry_differs(is.expires_s, want.expires_s) {
                    repairs.push(Repair { prefix: *prefix, drift: other });
                }
            }
            (Some((prefix, is)), None) => {
                // What has died by itself is merely swept late.
                repairs.push(Repair { prefix: *prefix, drift: is.is_live(now.boot_s()) });
            }
            (None, Some((prefix, _))) => repairs.push(Repair { prefix, drift: true }),
            (None, None) => return repairs,
        }
    }
}

fn expiry_differs(is_s: u32, want_s: u32) -> bool {
    is_s.abs_diff(want_s) > EXPIRY_TOLERANCE_S || (is_s == 0) != (want_s == 0)
}
