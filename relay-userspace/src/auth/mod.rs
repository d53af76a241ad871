//! Who may authenticate: the local account store.
//!
//! [`Accounts`] is one SQLite file; [`password`] says how passwords are kept. Verifying costs the
//! same for an account that does not exist, and so many verifications run at once and no more.

pub mod accounts;
pub mod password;

pub use accounts::{Account, AccountError, Accounts};
pub use verify::{AuthRefusal, Credentials};

mod verify;
