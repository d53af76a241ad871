//! Is this account's password the right one? (RFC 4616: authzid, authcid, password.)

use thiserror::Error;

use super::accounts::{Accounts, fold_name};
use super::password;

/// What a client authenticates with. Not `Debug`: a password is never printed.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "a password is never printed")]
pub struct Credentials<'a> {
    /// As whom to act; empty: as the account itself.
    pub authzid: &'a str,
    /// Whose password it is.
    pub authcid: &'a str,
    pub password: &'a str,
}

/// Why authentication failed. What the client is told does not tell a wrong password from an
/// unknown or a disabled account; the log may.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthRefusal {
    /// 535 5.7.8: wrong password, no such account, a name that none can have, or a disabled one.
    #[error("wrong name or password")]
    Wrong,
    /// 535 5.7.8: nobody may act as another.
    #[error("the authorization identity is another account's")]
    ActsAsAnother,
    /// 454 4.7.0: the store failed, or too many are waiting.
    #[error("authentication is not possible now: {0}")]
    Unavailable(String),
}

impl AuthRefusal {
    /// Whether the refusal speaks against the source (a guess), and not against us.
    pub const fn is_evidence(&self) -> bool {
        matches!(self, Self::Wrong | Self::ActsAsAnother)
    }
}

impl Accounts {
    /// The account's name in its stored form, when the password is right.
    ///
    /// Every answer but `Unavailable` and `ActsAsAnother` costs one password hash, whether the
    /// account exists or not; a bounded number is computed at once.
    pub async fn verify(&self, credentials: &Credentials<'_>) -> Result<String, AuthRefusal> {
        let unavailable = |why: String| AuthRefusal::Unavailable(why);
        let name = fold_name(credentials.authcid).ok();
        if !credentials.authzid.is_empty() && fold_name(credentials.authzid).ok() != name {
            return Err(AuthRefusal::ActsAsAnother);
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(unavailable("too many are waiting".to_owned()));
        };
        let stored = match &name {
            Some(name) => {
                self.stored(name.clone()).await.map_err(|e| unavailable(e.to_string()))?
            }
            None => None,
        };
        let permit = self.hashing.clone().acquire_owned().await;
        let permit = permit.map_err(|closed| unavailable(closed.to_string()))?;
        let password = credentials.password.to_owned();
        let right = tokio::task::spawn_blocking(move || {
            let right = password::verify(&password, stored.as_ref().map(|(hash, _)| hash.as_str()));
            drop(permit);
            // Asked last, so that a disabled account answers no sooner.
            right && stored.is_some_and(|(_, disabled)| !disabled)
        });
        match (right.await, name) {
            (Ok(true), Some(name)) => Ok(name),
            (Ok(_), _) => Err(AuthRefusal::Wrong),
            (Err(lost), _) => Err(unavailable(lost.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    async fn accounts(dir: &tempfile::TempDir) -> Accounts {
        let accounts = Accounts::open(&dir.path().join("accounts.db")).unwrap();
        accounts.add("alice", "secret").await.unwrap();
        accounts.add("bob", "secret").await.unwrap();
        accounts.set_disabled("bob", true).await.unwrap();
        accounts
    }

    async fn ask(
        accounts: &Accounts,
        authzid: &str,
        authcid: &str,
        password: &str,
    ) -> Result<String, AuthRefusal> {
        accounts.verify(&Credentials { authzid, authcid, password }).await
    }

    #[tokio::test]
    async fn only_the_right_password_of_an_enabled_account() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir).await;
        for (authzid, authcid) in [("", "alice"), ("", "ALICE"), ("alice", "Alice")] {
            let verified = ask(&accounts, authzid, authcid, "secret").await;
            assert_eq!(verified.as_deref(), Ok("alice"));
        }
        for (authcid, password) in [
            ("alice", "Secret"),
            ("alice", ""),
            ("alice", "secret\0"),
            ("bob", "secret"),
            ("carol", "secret"),
            ("", "secret"),
            ("alice' OR 1=1 --", "secret"),
            ("alice\0", "secret"),
        ] {
            let refused = ask(&accounts, "", authcid, password).await;
            assert_eq!(refused, Err(AuthRefusal::Wrong), "{authcid:?} {password:?}");
        }
        accounts.set_disabled("bob", false).await.unwrap();
        assert!(ask(&accounts, "", "bob", "secret").await.is_ok());
        accounts.set_password("bob", "other").await.unwrap();
        assert_eq!(ask(&accounts, "", "bob", "secret").await, Err(AuthRefusal::Wrong));
    }

    #[tokio::test]
    async fn nobody_acts_as_another() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = accounts(&dir).await;
        for (authzid, authcid) in [("bob", "alice"), ("alice ", "alice"), ("a b", "alice")] {
            let refused = ask(&accounts, authzid, authcid, "secret").await;
            assert_eq!(refused, Err(AuthRefusal::ActsAsAnother), "{authzid:?}");
        }
        // Two names that none can have are not the same name.
        assert!(ask(&accounts, "a b", "c d", "secret").await.is_err());
    }

    #[tokio::test]
    async fn too_many_at_once_are_told_to_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let mut accounts = accounts(&dir).await;
        accounts.waiting = Arc::new(Semaphore::new(1));
        accounts.hashing = Arc::new(Semaphore::new(0));
        let first = tokio::spawn({
            let accounts = accounts.clone();
            async move { ask(&accounts, "", "alice", "secret").await }
        });
        while accounts.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let second = ask(&accounts, "", "alice", "secret").await.unwrap_err();
        assert!(matches!(second, AuthRefusal::Unavailable(_)) && !second.is_evidence());
        accounts.hashing.add_permits(1);
        assert_eq!(first.await.unwrap().as_deref(), Ok("alice"));
        assert!(ask(&accounts, "", "alice", "secret").await.is_ok());
    }
}
