//! What the relay asks the DNS: addresses, forward-confirmed reverse names, block lists.
//!
//! Every lookup has a bound in time and every answer one in size; a failed lookup is an error that
//! the caller must look at, never an empty answer.

pub mod dnsbl;
pub mod health;
pub mod ptr;
pub mod resolver;

#[cfg(test)]
pub(crate) mod test_server;

pub use dnsbl::{DnsblService, DnsblSettings, ZoneResult};
pub use ptr::{Reverse, reverse};
pub use resolver::{Answer, DnsError, Resolver, ResolverSettings};
