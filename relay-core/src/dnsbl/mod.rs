//! DNS block lists (RFC 5782) without the DNS: which names to ask, what the answers mean, whether
//! a list can be trusted at all, and what a refused sender reads.

pub mod health;
pub mod meaning;
pub mod names;
pub mod reply;
pub mod zone;

pub use meaning::{Kind, Opinion, meaning};
pub use names::query_name;
pub use zone::{Answers, Zone};
