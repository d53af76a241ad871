//! Real handshakes over a stream in memory.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const HOST: &str = "mx.ours.example";
const DAY: Duration = Duration::from_secs(86_400);

async fn handshake(
    server: &ServerTls,
    client: Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<Negotiated> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let acceptor = TlsAcceptor::from(server.config.clone());
    let serving = tokio::spawn(async move {
        let mut stream = acceptor.accept(far).await?;
        let seen = negotiated(stream.get_ref().1);
        stream.write_all(b"220").await?;
        stream.flush().await?;
        std::io::Result::Ok(seen)
    });
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(client).connect(name, near).await?;
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await?;
    assert_eq!(&greeting, b"220");
    let here = negotiated(stream.get_ref().1).unwrap();
    assert_eq!(serving.await.unwrap()?.as_ref(), Some(&here));
    Ok(here)
}

/// An authority, and a pair that it vouches for: paths of authority, chain and key.
fn authority(dir: &Path, host: &str) -> [PathBuf; 3] {
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let paths = ["ca.pem", "cert.pem", "key.pem"].map(|name| dir.join(name));
    std::fs::write(&paths[0], authority.pem()).unwrap();
    std::fs::write(&paths[1], leaf.pem()).unwrap();
    std::fs::write(&paths[2], key.serialize_pem()).unwrap();
    paths
}

#[tokio::test]
async fn the_self_signed_pair_is_made_once_and_serves() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("tls");
    let now = SystemTime::now();
    let server = load_or_make(&state, "MX.Ours.Example.", now).unwrap();
    assert_eq!(server.certificate.names, [HOST]);
    assert_eq!(server.certificate.warning(now), None);
    let path = state.join("self-signed.pem");
    let made = std::fs::read(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 1);

    let again = load_or_make(&state, HOST, now).unwrap();
    assert_eq!(again.certificate, server.certificate);
    assert_eq!(std::fs::read(&path).unwrap(), made);

    let seen = handshake(&again, opportunistic().unwrap(), "any.example").await.unwrap();
    assert_eq!(seen.version, "TLSv1.3");
    assert!(seen.cipher.starts_with("TLS_") && !seen.cipher.contains("13"), "{seen:?}");
}

#[test]
fn a_pair_that_ends_soon_is_damaged_or_anothers_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("self-signed.pem");
    let now = SystemTime::now();
    let first = load_or_make(dir.path(), HOST, now).unwrap().certificate;
    let later = now + 710 * DAY;
    let second = load_or_make(dir.path(), HOST, later).unwrap().certificate;
    assert!(second.not_after > first.not_after + 700 * DAY);
    load_or_make(dir.path(), "other.example", later).unwrap();
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    // What a start that was killed left behind is no hindrance.
    std::fs::write(dir.path().join("self-signed.pem.new"), "half").unwrap();
    let third = load_or_make(dir.path(), HOST, later).unwrap().certificate;
    assert_eq!(third.names, [HOST]);
    for hostname in ["", "a b", "mx\0.example", "-----"] {
        let made = load_or_make(&dir.path().join("none"), hostname, now);
        assert!(hostname == "-----" || matches!(made, Err(TlsError::Make { .. })), "{hostname:?}");
    }
}

#[tokio::test]
async fn verified_means_the_right_name_by_a_known_authority() {
    let dir = tempfile::tempdir().unwrap();
    let [ca, cert, key] = authority(dir.path(), HOST);
    let server = load(&cert, &key).unwrap();
    let client = verified(Some(&ca)).unwrap();
    assert!(handshake(&server, client.clone(), HOST).await.is_ok());
    assert!(handshake(&server, client.clone(), "other.example").await.is_err());
    let stranger = load_or_make(&dir.path().join("own"), HOST, SystemTime::now()).unwrap();
    assert!(handshake(&stranger, client, HOST).await.is_err());
    assert!(handshake(&stranger, opportunistic().unwrap(), HOST).await.is_ok());
}

#[tokio::test]
async fn tls_1_2_is_spoken_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let [ca, cert, key] = authority(dir.path(), HOST);
    let server = load(&cert, &key).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server::certificates(&ca).unwrap().remove(0)).unwrap();
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let seen = handshake(&server, Arc::new(old), HOST).await.unwrap();
    assert_eq!(seen.version, "TLSv1.2");
    assert!(seen.cipher.starts_with("TLS_ECDHE_ECDSA_WITH_"), "{seen:?}");
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let [ca, cert, key] = authority(dir.path(), HOST);
    assert!(matches!(load(&ca, &key), Err(TlsError::Pair { .. })));
    assert!(matches!(load(&key, &key), Err(TlsError::File { .. })));
    assert!(matches!(load(&cert, &cert), Err(TlsError::File { .. })));
    let missing = load(&dir.path().join("none.pem"), &key).unwrap_err().to_string();
    assert!(missing.contains("none.pem"), "{missing}");
    assert!(matches!(load(dir.path(), &key), Err(TlsError::File { .. })));
    assert!(matches!(verified(Some(&key)), Err(TlsError::File { .. })));
}
