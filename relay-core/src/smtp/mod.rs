//! SMTP without I/O: RFC 5321 and its extensions, both ends of the dialogue.

pub mod address;
pub mod client;
pub mod reply;
