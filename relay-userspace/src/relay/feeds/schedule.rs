//! When a feed is fetched. The edge says when it is due, sooner or later after a failure, and shows
//! it; here stands what the edge cannot know: that a server wants to be left alone, and that the
//! edge did not take what was brought.

use std::time::{Duration, Instant};

/// The wait after the edge did not take something; it doubles with each time.
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// A time that the edge tells may be this far off: it counts in whole seconds.
const ROUNDED_S: u64 = 2;

/// What the edge says of a feed.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub due: bool,
    /// When it is due next by the clock, in seconds since 1970.
    pub next_refresh_s: u64,
}

/// What to do about a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Wait,
    Fetch,
    /// It is due, but the server wants to be left alone for so long: tell the edge.
    LeaveAlone(Duration),
}

/// One feed's turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// How often in a row the edge took nothing.
    not_taken: u32,
    hold: Option<Hold>,
    /// What the edge said last while the feed was not due.
    promised_s: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Hold {
    Server { until: Instant },
    Edge { until: Instant },
}

impl Turn {
    /// Whoever asks for a refresh by hand, and so makes a feed due before its time, waits for
    /// nothing.
    pub fn step(&mut self, seen: Seen, now: Instant, now_s: u64) -> Step {
        if !seen.due {
            self.promised_s = Some(seen.next_refresh_s);
            return Step::Wait;
        }
        let promised_s = self.promised_s.take();
        let asked_for = promised_s.is_some_and(|at_s| at_s > now_s.saturating_add(ROUNDED_S));
        match self.hold {
            _ if asked_for => Step::Fetch,
            Some(Hold::Server { until }) if now < until => Step::LeaveAlone(until - now),
            Some(Hold::Edge { until }) if now < until => Step::Wait,
            _ => Step::Fetch,
        }
    }

    /// The edge has taken what came of a fetch: content, or why there is none.
    pub fn taken(&mut self) {
        *self = Self::default();
    }

    /// The edge has been told of a failure, and the server wants to be left alone for so long.
    /// `random` is any number; it draws the wait out by up to a tenth, so that the crowd that was
    /// sent away does not come back as one.
    pub fn sent_away(&mut self, now: Instant, retry_after: Duration, random: u64) {
        self.taken();
        let until = now + drawn_out(retry_after, 10, random);
        self.hold = Some(Hold::Server { until });
    }

    /// The edge took nothing, so the feed is still due. Returns the wait, which `random` draws out
    /// by up to a quarter.
    pub fn not_taken(&mut self, now: Instant, random: u64) -> Duration {
        let doubled = FIRST * 2_u32.saturating_pow(self.not_taken.min(16));
        let wait = drawn_out(doubled.min(LONGEST), 4, random);
        self.not_taken = self.not_taken.saturating_add(1);
        self.hold = Some(Hold::Edge { until: now + wait });
        wait
    }
}

/// Longer by up to the given part.
fn drawn_out(wait: Duration, part: u32, random: u64) -> Duration {
    wait + (wait / part).mul_f64((random % 1024) as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DUE: Seen = Seen { due: true, next_refresh_s: 1_000 };
    const NOT_DUE: Seen = Seen { due: false, next_refresh_s: 9_000 };
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_feed_is_fetched_when_it_is_due() {
        let (mut turn, now) = (Turn::default(), Instant::now());
        assert_eq!(turn.step(NOT_DUE, now, 500), Step::Wait);
        assert_eq!(turn.step(DUE, now, 9_000), Step::Fetch);
        turn.taken();
        assert_eq!(turn.step(NOT_DUE, now, 9_001), Step::Wait);
    }

    #[test]
    fn a_server_that_wants_to_be_left_alone_is_left_alone() {
        let (mut turn, now) = (Turn::default(), Instant::now());
        turn.sent_away(now, HOUR, 0);
        assert_eq!(turn.step(DUE, now + HOUR / 2, 1_000), Step::LeaveAlone(HOUR / 2));
        assert_eq!(turn.step(NOT_DUE, now + HOUR, 1_000), Step::Wait);
        assert_eq!(turn.step(DUE, now + HOUR, 9_000), Step::Fetch);
        turn.sent_away(now, HOUR, 1023);
        let Step::LeaveAlone(left) = turn.step(DUE, now, 1_000) else { panic!("asked") };
        assert!(left > HOUR && left < HOUR * 11 / 10, "{left:?}");
    }

    #[test]
    fn what_an_administrator_asks_for_does_not_wait() {
        let (mut turn, now) = (Turn::default(), Instant::now());
        turn.sent_away(now, HOUR, 0);
        assert_eq!(turn.step(NOT_DUE, now, 500), Step::Wait);
        // By the clock, which counts in seconds: no.
        assert_eq!(turn.step(DUE, now, 8_999), Step::LeaveAlone(HOUR));
        assert_eq!(turn.step(NOT_DUE, now, 500), Step::Wait);
        // Long before its time: someone asked, once.
        assert_eq!(turn.step(DUE, now, 600), Step::Fetch);
        assert_eq!(turn.step(DUE, now, 605), Step::LeaveAlone(HOUR));
    }

    #[test]
    fn an_edge_that_takes_nothing_is_asked_ever_more_slowly() {
        let (mut turn, mut now) = (Turn::default(), Instant::now());
        for wait_s in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            let wait = turn.not_taken(now, 0);
            assert_eq!(wait.as_secs(), wait_s);
            let before = now + wait - Duration::from_millis(1);
            assert_eq!(turn.step(DUE, before, 1_000), Step::Wait);
            now += wait;
            assert_eq!(turn.step(DUE, now, 1_000), Step::Fetch);
        }
        turn.taken();
        assert_eq!(turn.not_taken(now, 0), FIRST);
    }

    proptest! {
        #[test]
        fn waits_are_bounded(times: u8, random: u64) {
            let (mut turn, now) = (Turn::default(), Instant::now());
            for _ in 0..times {
                turn.not_taken(now, random);
            }
            let wait = turn.not_taken(now, random);
            prop_assert!(wait >= FIRST && wait <= LONGEST * 5 / 4);
        }
    }
}
