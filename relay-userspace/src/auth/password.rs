//! How passwords are kept: argon2id with 19 MiB, two passes, one lane (RFC 9106, the parameters
//! that OWASP's password storage guide states first), and a salt of 16 random bytes.

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use thiserror::Error;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Longer ones are refused, so that a password costs no more to hash than any other.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// A hash with the parameters above of a password that nobody knows: what a password for an unknown
/// account is compared with, so that the answer takes as long as for a known one.
const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$\
    Cg8yuDBYuBGh8fYkD0LuBQ$Lw8GCEnKKp3bSzXxpRnXkl1PuOkCUw9xyQZC8JyTwz0";

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PasswordError {
    /// An empty password is an anonymous bind to some directories; none may ever have one.
    #[error("a password may not be empty")]
    Empty,
    #[error("a password has at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// RFC 4616 section 2: NUL ends the field.
    #[error("a password may not contain NUL")]
    Nul,
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

fn check(password: &str) -> Result<(), PasswordError> {
    match password {
        "" => Err(PasswordError::Empty),
        long if long.len() > PASSWORD_BYTES_MAX => Err(PasswordError::TooLong),
        nul if nul.contains('\0') => Err(PasswordError::Nul),
        _ => Ok(()),
    }
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The password as it is stored: a PHC string. Takes tens of milliseconds.
pub(super) fn hash(password: &str) -> Result<String, PasswordError> {
    check(password)?;
    let hash = argon2()?.hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| PasswordError::Hash(error.to_string()))
}

/// Whether the password is the one of this hash; `None` stands for an account that does not exist,
/// costs the same, and is never right. Takes tens of milliseconds.
pub(super) fn verify(password: &str, hash: Option<&str>) -> bool {
    if check(password).is_err() {
        return false;
    }
    let Ok(argon2) = argon2() else { return false };
    let right = argon2.verify_password(password.as_bytes(), hash.unwrap_or(NOBODYS_HASH)).is_ok();
    right && hash.is_some()
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::phc::PasswordHash;

    use super::*;

    #[test]
    fn a_password_is_right_for_its_own_hash_alone() {
        let stored = hash("correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, hash("correct horse").unwrap(), "each hash has its own salt");
        assert!(verify("correct horse", Some(&stored)));
        for wrong in ["correct hors", "Correct horse", "", "correct horse\0", "correct horse "] {
            assert!(!verify(wrong, Some(&stored)), "{wrong:?}");
        }
        assert!(!verify("correct horse", Some("damaged")));
        assert!(!verify("correct horse", None));
    }

    #[test]
    fn nobodys_hash_costs_what_a_real_one_costs() {
        let real = hash("x").unwrap();
        let parse = |text| PasswordHash::new(text).unwrap();
        let (real, nobodys) = (parse(real.as_str()), parse(NOBODYS_HASH));
        assert_eq!(real.algorithm, nobodys.algorithm);
        assert_eq!(real.params, nobodys.params);
        let len = |h: &PasswordHash| h.hash.as_ref().map(|h| h.len());
        assert_eq!(len(&real), len(&nobodys));
    }

    #[test]
    fn passwords_that_none_may_have() {
        assert_eq!(hash(""), Err(PasswordError::Empty));
        assert_eq!(hash("a\0b"), Err(PasswordError::Nul));
        assert_eq!(hash(&"a".repeat(1025)), Err(PasswordError::TooLong));
    }
}
