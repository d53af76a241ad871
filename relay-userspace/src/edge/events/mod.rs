//! Single packets, told: what the filter dropped, would have dropped, or limited.
//!
//! The filter writes events into a [`source`], within a budget; a thread of its own
//! ([`reader`]) takes them out, gives them names and hands them to the [`hub`], which keeps the
//! latest, counts the most frequent ([`tops`], on [`heavy`]) and passes them on to whoever follows
//! ([`routes`]). The owner of the lists only answers what rules are called.

pub mod heavy;
pub mod hub;
pub mod reader;
pub mod routes;
pub mod source;
#[cfg(test)]
mod tests;
mod tops;
