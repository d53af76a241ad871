//! When a certificate ends, and when to say so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const DAY: Duration = Duration::from_secs(86_400);
/// How long before the end a warning is due.
const WARN_BEFORE: Duration = Duration::from_secs(21 * 86_400);

/// What we read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub not_after: SystemTime,
    /// DNS names among the subject's alternative names.
    pub names: Vec<String>,
}

/// Reads a certificate in DER form; the error says what is wrong with it.
pub(super) fn read(der: &[u8]) -> Result<Certificate, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
    let end_s = certificate.validity().not_after.timestamp();
    let since = Duration::from_secs(u64::try_from(end_s).unwrap_or(0));
    let not_after = UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH);
    let extension = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = extension.map_or(Vec::new(), |found| {
        let dns = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        };
        found.value.general_names.iter().filter_map(dns).collect()
    });
    Ok(Certificate { not_after, names })
}

impl Certificate {
    /// A sentence when the end is near or past.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        match self.not_after.duration_since(now) {
            Ok(left) if left > WARN_BEFORE => None,
            Ok(left) => {
                Some(format!("the certificate ends in {} days", left.as_secs() / DAY.as_secs()))
            }
            Err(_) => Some("the certificate has ended".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_announced() {
        let end = UNIX_EPOCH + 1000 * DAY;
        let certificate = Certificate { not_after: end, names: Vec::new() };
        assert_eq!(certificate.warning(end - 22 * DAY), None);
        let near = certificate.warning(end - 20 * DAY);
        assert_eq!(near.as_deref(), Some("the certificate ends in 20 days"));
        let past = certificate.warning(end + DAY);
        assert_eq!(past.as_deref(), Some("the certificate has ended"));
    }

    #[test]
    fn what_is_no_certificate_is_an_error() {
        for der in [&b""[..], b"\x30", b"\x30\x82\xff\xff", &[0; 100]] {
            assert!(read(der).is_err());
        }
    }
}
