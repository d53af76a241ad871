//! How many connections a source may open: a token bucket for each IPv4 address and IPv6 /64.

/// What is kept of a source. Both CPUs may write it at once: then a token more is given or taken,
/// which a limit on rates bears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Bucket {
    /// Tokens, in thousandths.
    pub tokens: u32,
    /// Millisecond of the last look, on a clock that may wrap.
    pub looked_ms: u32,
}

const TOKEN: u32 = 1_000;

impl Bucket {
    /// The bucket of a source that was not seen before.
    pub const fn full(burst: u32, now_ms: u32) -> Self {
        Self { tokens: burst.saturating_mul(TOKEN), looked_ms: now_ms }
    }

    /// Takes a token. Says what is left, and whether there was one.
    ///
    /// `per_s` tokens come a second, up to `burst`.
    #[inline(always)]
    pub const fn take(self, per_s: u32, burst: u32, now_ms: u32) -> (Self, bool) {
        let room = burst.saturating_mul(TOKEN);
        // A thousandth of a token a millisecond, for each token a second.
        let elapsed_ms = now_ms.wrapping_sub(self.looked_ms) as u64;
        let come = elapsed_ms.saturating_mul(per_s as u64);
        let have = come.saturating_add(self.tokens as u64);
        let have = if have > room as u64 { room } else { have as u32 };
        match have.checked_sub(TOKEN) {
            Some(tokens) => (Self { tokens, looked_ms: now_ms }, true),
            None => (Self { tokens: have, looked_ms: now_ms }, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Over any time, no more pass than the burst and what came meanwhile.
        #[test]
        fn never_more_than_the_rate_and_the_burst(
            per_s in 1u32..1_000, burst in 1u32..100, start: u32,
            steps in proptest::collection::vec(0u32..500, 1..200),
        ) {
            let mut bucket = Bucket::full(burst, start);
            let (mut now, mut elapsed, mut passed) = (start, 0u64, 0u64);
            for step in steps {
                now = now.wrapping_add(step);
                elapsed += u64::from(step);
                let (left, passes) = bucket.take(per_s, burst, now);
                bucket = left;
                passed += u64::from(passes);
                prop_assert!(passed <= u64::from(burst) + elapsed * u64::from(per_s) / 1_000 + 1);
            }
        }

        #[test]
        fn whoever_stays_below_the_rate_always_passes(per_s in 1u32..1_000, burst in 1u32..100) {
            let mut bucket = Bucket::full(burst, 0);
            for turn in 1..200u32 {
                let (left, passes) = bucket.take(per_s, burst, turn * 1_000u32.div_ceil(per_s));
                bucket = left;
                prop_assert!(passes);
            }
        }
    }
}
