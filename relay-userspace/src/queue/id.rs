//! Queue ids: short, printable, ordered by time, never given twice.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Crockford's base 32: its order is that of ASCII, and no two digits look alike.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Digits of a printed id; thirteen of five bits hold the 63 in use.
const LENGTH: usize = 13;
/// Bits below the milliseconds: a random start, counted up within a millisecond.
const LOW_BITS: u32 = 22;
/// 2024-01-01, so that 41 bits of milliseconds last until 2093.
const EPOCH: Duration = Duration::from_secs(1_704_067_200);

/// Names one message in the queue, in logs and in the reply to the client.
///
/// 41 bits of milliseconds since 2024 and 22 random, counted up where two messages share a
/// millisecond. The number is the database's row key, so the order of ids is that of arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u64);

impl QueueId {
    pub(super) fn from_row(key: i64) -> Self {
        Self(u64::try_from(key).unwrap_or(0))
    }

    pub(super) fn row(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; LENGTH];
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(rest & 31) as usize];
            rest >>= 5;
        }
        text.iter().try_for_each(|digit| fmt::Write::write_char(f, char::from(*digit)))
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What was given is no queue id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a queue id: thirteen of 0-9 and A-Z without I, L, O, U are expected")]
pub struct NotAQueueId(String);

impl FromStr for QueueId {
    type Err = NotAQueueId;

    fn from_str(text: &str) -> Result<Self, NotAQueueId> {
        let refuse = || NotAQueueId(text.chars().take(40).collect());
        if text.len() != LENGTH {
            return Err(refuse());
        }
        let mut value = 0u64;
        for byte in text.bytes() {
            let digit = DIGITS.iter().position(|d| *d == byte.to_ascii_uppercase());
            // The first digit carries three bits: above 7 the number would not fit a row key.
            if value >> 58 != 0 {
                return Err(refuse());
            }
            value = value << 5 | digit.ok_or_else(refuse)? as u64;
        }
        if value >> 63 != 0 {
            return Err(refuse());
        }
        Ok(Self(value))
    }
}

/// Gives ids in rising order, also when the clock is set back.
#[derive(Debug, Default)]
pub(super) struct IdSource(AtomicU64);

impl IdSource {
    /// At or above the highest id ever committed: no restart and no clock goes below it.
    pub(super) fn raise(&self, floor: IdFloor) {
        self.0.fetch_max(floor.0.0, Ordering::Relaxed);
    }

    pub(super) fn next(&self, now: SystemTime, random: u64) -> QueueId {
        let since = now.duration_since(UNIX_EPOCH + EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX) & ((1 << 41) - 1);
        let wanted = millis << LOW_BITS | random & ((1 << LOW_BITS) - 1);
        let step = |last: u64| wanted.max(last + 1);
        let mut last = self.0.load(Ordering::Relaxed);
        loop {
            let next = step(last);
            match self.0.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return QueueId(next),
                Err(seen) => last = seen,
            }
        }
    }
}

/// How far the floor is put above an id: ten seconds of ids.
const FLOOR_STEP: u64 = 10_000 << LOW_BITS;

/// What no id given after a restart goes below, whatever the clock says then. It is kept in the
/// database, some way ahead, so that it is seldom written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdFloor(QueueId);

impl IdFloor {
    /// The floor of the database.
    pub(super) fn at(id: QueueId) -> Self {
        Self(id)
    }

    pub(super) fn id(self) -> QueueId {
        self.0
    }

    /// The next floor, if this id was given above the present one.
    pub(super) fn above(self, given: Option<QueueId>) -> Option<Self> {
        let QueueId(given) = given.filter(|given| *given > self.0)?;
        Some(Self(QueueId(given.saturating_add(FLOOR_STEP).min((1 << 63) - 1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_and_number_agree_and_sort_alike(a in 0u64..1 << 63, b in 0u64..1 << 63) {
            let (a, b) = (QueueId(a), QueueId(b));
            prop_assert_eq!(a.to_string().parse::<QueueId>(), Ok(a));
            prop_assert_eq!(a.to_string().to_lowercase().parse::<QueueId>(), Ok(a));
            prop_assert_eq!(a.to_string().cmp(&b.to_string()), a.cmp(&b));
            prop_assert_eq!(QueueId::from_row(a.row()), a);
        }

        #[test]
        fn ids_rise_whatever_the_clock_does(
            steps in proptest::collection::vec((0u64..3_000_000_000, any::<u64>()), 1..60)
        ) {
            let source = IdSource::default();
            source.raise(IdFloor::at(QueueId(5)));
            let mut last = QueueId(5);
            for (seconds, random) in steps {
                let next = source.next(UNIX_EPOCH + Duration::from_secs(seconds), random);
                prop_assert!(next > last);
                last = next;
            }
        }

        #[test]
        fn garbage_is_refused_without_panic(text in ".{0,20}") {
            if let Ok(id) = text.parse::<QueueId>() {
                prop_assert_eq!(id.to_string(), text.to_uppercase());
            }
        }
    }

    #[test]
    fn the_floor_is_raised_seldom_and_covers_what_was_given() {
        let floor = IdFloor::at(QueueId(7));
        assert_eq!(floor.above(None), None);
        assert_eq!(floor.above(Some(QueueId(7))), None);
        let next = floor.above(Some(QueueId(8))).unwrap();
        assert_eq!(next.id(), QueueId(8 + FLOOR_STEP));
        assert_eq!(next.above(Some(QueueId(9))), None);
        let last = QueueId((1 << 63) - 1);
        assert_eq!(floor.above(Some(last)), Some(IdFloor::at(last)));
    }

    #[test]
    fn too_large_a_number_is_no_id() {
        assert!("7ZZZZZZZZZZZZ".parse::<QueueId>().is_ok());
        for text in ["8000000000000", "ZZZZZZZZZZZZZ", "", "123", "000000000000I"] {
            assert!(text.parse::<QueueId>().is_err(), "{text}");
        }
    }
}
