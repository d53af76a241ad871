//! SMTP, relay and ban policy as functions and state machines without I/O.
//!
//! Nothing here opens a socket, reads a clock or draws a random number: bytes, the time and
//! randomness are arguments, and what is to be done comes back as a value.
#![forbid(unsafe_code)]

pub mod ban;
pub mod dnsbl;
pub mod dsn;
pub mod feed;
pub mod policy;
pub mod prefix;
pub mod proxy;
pub mod smtp;
