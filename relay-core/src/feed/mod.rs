//! Feeds: lists of up to millions of prefixes that someone else publishes, replaced whole.
//!
//! The way of one feed, from bytes to entries for the kernel:
//!
//! 1. [`mod@format`]: a [`Reader`] takes the bytes in pieces of any size, splits them into lines and
//!    puts the prefix of each into a builder. One malformed line, or the signs of a file that was
//!    cut off, make the whole feed malformed: half a list is not what its publisher said.
//! 2. [`prefixes`]: the [`Builder`] sorts them and removes what is said twice, which leaves the
//!    smallest sorted set of prefixes that covers the same addresses ([`Prefixes`]). The set knows
//!    what it was made of: what must not be enforced is left out of that, not of the set.
//! 3. [`accept`]: [`judge`] says whether the set may replace the one in force: not if it is empty,
//!    or drastically smaller.
//! 4. [`mod@resolve`]: of all feeds in force together, [`resolve()`] makes the entries of one generation
//!    of the kernel's tables, in which the longest entry says everything about an address.
//!
//! Whoever fetches, stores and publishes calls these in turn and does the input and output. A limit
//! bounds each step: bytes of a line, prefixes of a feed; the last holds no entries at all, it
//! makes them one by one.

pub mod accept;
pub mod format;
pub mod prefixes;
pub mod resolve;
mod span;

pub use accept::{Limits, Refusal, judge};
pub use format::{Format, FormatError, Reader};
pub use prefixes::{Builder, Counts, Prefixes};
pub use resolve::{Feed, FeedClaim, Tally, resolve};
