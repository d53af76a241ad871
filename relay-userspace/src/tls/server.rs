//! What the listeners offer: a chain and a key from PEM files, or the self-signed pair.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use super::expiry::{self, Certificate};
use super::{TlsError, VERSIONS, provider, self_signed};

/// Certificates in one chain; real ones have two or three.
const CHAIN_MAX: usize = 16;
const PEM_BYTES_MAX: u64 = 1024 * 1024;
const WATCH_EVERY: Duration = Duration::from_secs(86_400);

/// A listener's TLS.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    /// The server's own certificate.
    pub certificate: Certificate,
}

impl ServerTls {
    /// Warns in the log now and every day while the certificate's end is near, until told to stop.
    pub async fn watch(self, stop: CancellationToken) {
        let mut day = tokio::time::interval(WATCH_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = day.tick() => {
                    if let Some(warning) = self.certificate.warning(SystemTime::now()) {
                        tracing::warn!("{warning}");
                    }
                }
            }
        }
    }
}

/// The chain (the server's certificate first) and the key from PEM files, which may be one. The key
/// must be the certificate's.
pub fn load(cert: &Path, key: &Path) -> Result<ServerTls, TlsError> {
    let chain = certificates(cert)?;
    let first = chain.first().ok_or_else(|| TlsError::file(cert, "holds no certificate"))?;
    let certificate = expiry::read(first).map_err(|problem| TlsError::file(cert, problem))?;
    check_size(key)?;
    warn_if_others_can_read(key);
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::file(key, error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&VERSIONS)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| TlsError::Pair {
            cert: cert.to_owned(),
            key: key.to_owned(),
            problem: error.to_string(),
        })?;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(ServerTls { config: Arc::new(config), certificate })
}

/// The self-signed pair in `dir`, made when there is none that serves.
pub fn load_or_make(dir: &Path, hostname: &str, now: SystemTime) -> Result<ServerTls, TlsError> {
    let path = self_signed::find_or_make(dir, hostname, now)?;
    load(&path, &path)
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    check_size(path)?;
    let found = CertificateDer::pem_file_iter(path).map_err(|error| TlsError::file(path, error))?;
    let chain: Vec<_> = found
        .take(CHAIN_MAX)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::file(path, error))?;
    Ok(chain)
}

fn check_size(path: &Path) -> Result<(), TlsError> {
    let metadata = std::fs::metadata(path).map_err(|error| TlsError::file(path, error))?;
    if !metadata.is_file() || metadata.len() > PEM_BYTES_MAX {
        return Err(TlsError::file(path, "is no PEM file of at most 1 MiB"));
    }
    Ok(())
}

fn warn_if_others_can_read(key: &Path) {
    let Ok(metadata) = std::fs::metadata(key) else { return };
    if metadata.permissions().mode() & 0o004 != 0 {
        tracing::warn!(path = %key.display(), "everyone on this machine can read the private key");
    }
}
