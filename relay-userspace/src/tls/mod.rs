//! TLS on both sides: what the listeners offer, and what delivery asks for.
//!
//! rustls with the aws-lc-rs provider, named at every configuration rather than taken from the
//! process. TLS 1.2 is the least, which is also all that rustls can.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::CommonState;
use rustls::crypto::CryptoProvider;
use thiserror::Error;

pub mod client;
pub mod expiry;
pub mod self_signed;
pub mod server;

pub use client::{opportunistic, verified};
pub use server::{ServerTls, load, load_or_make};

/// Versions that are spoken, newest first.
pub(super) static VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&rustls::version::TLS13, &rustls::version::TLS12];

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("the certificate {cert} and the key {key} do not fit: {problem}")]
    Pair { cert: PathBuf, key: PathBuf, problem: String },
    #[error("cannot make a certificate for {hostname:?}: {problem}")]
    Make { hostname: String, problem: String },
    #[error("no certificate authorities to verify peers with: {0}")]
    NoRoots(String),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl TlsError {
    pub(super) fn file(path: &std::path::Path, problem: impl ToString) -> Self {
        Self::File { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// The provider of all our TLS.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What was negotiated, for the log, the Received line and the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// As OpenSSL writes it: `TLSv1.3`.
    pub version: &'static str,
    /// IANA's name: `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
}

/// What a connection negotiated; `None` before the end of the handshake.
pub fn negotiated(connection: &CommonState) -> Option<Negotiated> {
    let version = match connection.protocol_version()? {
        rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
        rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "TLS",
    };
    let suite = connection.negotiated_cipher_suite()?.suite();
    let name = suite.as_str().unwrap_or("unknown");
    // rustls marks the suites of 1.3 where IANA does not.
    Some(Negotiated { version, cipher: name.replacen("TLS13_", "TLS_", 1) })
}

#[cfg(test)]
mod tests;
