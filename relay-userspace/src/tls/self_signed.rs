//! The certificate of the first start: ECDSA P-256, for the host's name, signed by itself.
//!
//! Certificate and key stand in one file, so that writing it is one rename and they can never be
//! of different ages. It proves nothing to a peer; opportunistic TLS (RFC 7435) asks for no more.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    PKCS_ECDSA_P256_SHA256,
};
use relay_core::policy::domains::normalise;

use super::TlsError;
use super::expiry::{self, Certificate};
use super::server::certificates;

const FILE_NAME: &str = "self-signed.pem";
const VALID_FOR: Duration = Duration::from_secs(2 * 365 * 86_400);
/// Clocks of peers that are behind ours.
const VALID_BEFORE: Duration = Duration::from_secs(86_400);
/// With less than this left it is made anew at start.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// The file with certificate and key in `dir`: the one of an earlier start, or a new one when there
/// is none, it ends soon, or it is for another name.
pub(super) fn find_or_make(
    dir: &Path,
    hostname: &str,
    now: SystemTime,
) -> Result<PathBuf, TlsError> {
    let path = dir.join(FILE_NAME);
    let make_error = |problem: String| TlsError::Make { hostname: hostname.to_owned(), problem };
    let name = normalise(hostname).ok_or_else(|| make_error("not a host name".to_owned()))?;
    if path.try_exists().map_err(|error| TlsError::file(&path, error))? {
        match certificates(&path).map(|chain| chain.first().map(|der| expiry::read(der))) {
            Ok(Some(Ok(found))) if serves(&found, &name, now) => return Ok(path),
            _ => tracing::info!(path = %path.display(), "making a new self-signed certificate"),
        }
    }
    let pem = make(&name, now).map_err(|error| make_error(error.to_string()))?;
    write_whole(&path, pem.as_bytes()).map_err(|error| TlsError::file(&path, error))?;
    Ok(path)
}

fn serves(found: &Certificate, name: &str, now: SystemTime) -> bool {
    found.not_after > now + RENEW_BEFORE && found.names.iter().any(|known| known == name)
}

fn make(name: &str, now: SystemTime) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    // RFC 5280 appendix A.1: a common name has at most 64 characters. The alternative name counts.
    let common = if name.len() <= 64 { name } else { "postern" };
    params.distinguished_name.push(DnType::CommonName, common);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = (now - VALID_BEFORE).into();
    params.not_after = (now + VALID_FOR).into();
    let certificate = params.self_signed(&key)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

/// All or nothing, and never readable by others: a new file, synced, then renamed.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let new = path.with_extension("pem.new");
    // What an earlier start left half done.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}
