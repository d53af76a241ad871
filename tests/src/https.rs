//! A web server of another make for a test: Python's, with TLS and a certificate from an authority
//! of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::{
    netns::Netns,
    process::{Process, output, until},
};

/// Serves the files of its folder, and 304 for those that have not changed. While there is a file
/// `cut-off`, every answer ends in the middle. Each request is written down as `path status`.
const SCRIPT: &str = r#"
import http.server, os, ssl, sys

class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if not os.path.exists("cut-off"):
            return super().do_GET()
        with open(self.path.lstrip("/"), "rb") as file:
            content = file.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])

    def log_request(self, code="-", size="-"):
        with open("requests", "a") as log:
            log.write(f"{self.path} {int(code)}\n")

server = http.server.ThreadingHTTPServer((sys.argv[1], 443), Handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain("server.pem")
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// The server, and the folder that it serves.
#[derive(Debug)]
pub struct HttpsServer {
    process: Process,
    folder: PathBuf,
}

impl HttpsServer {
    /// Serves `folder` on port 443 of `address`, as `name`.
    ///
    /// # Errors
    /// Python is not installed or does not serve.
    pub fn start(ns: &Netns, address: &str, name: &str, folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        if !folder.join("ca.pem").exists() {
            write_certificates(&folder, name)?;
        }
        let process = Process::start(
            ns.command("python3")
                .args(["-c", SCRIPT, address])
                .current_dir(&folder)
                .stderr(Stdio::null()),
        )?;
        until("the web server to listen", || {
            let listening = output(ns.command("ss").args(["-Hltn", "sport = :443"]))?;
            Ok((!listening.stdout.is_empty()).then_some(()))
        })?;
        Ok(Self { process, folder })
    }

    /// The authority that vouches for the server.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Puts a file there at once: nobody is served half of it. Its date, which the server tells in
    /// whole seconds, differs from that of the one before.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn publish(&self, name: &str, content: &str) -> Result<()> {
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        fs::write(&new, content)?;
        if let Ok(before) = fs::metadata(&path).and_then(|old| old.modified()) {
            let other = before + Duration::from_secs(2);
            fs::File::options().write(true).open(&new)?.set_modified(other)?;
        }
        fs::rename(new, path).context("publishing a file")
    }

    /// Whether answers end in the middle.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn cut_off(&self, whether: bool) -> Result<()> {
        let mark = self.folder.join("cut-off");
        if whether {
            fs::write(mark, "")?
        } else {
            fs::remove_file(mark)?
        }
        Ok(())
    }

    /// `path status` of each request so far.
    pub fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("requests")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Ends it, with its port closed behind it.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        self.process.stop().map(drop)
    }
}

fn write_certificates(folder: &Path, name: &str) -> Result<()> {
    let authority_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key)?;
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &issuer)?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    fs::write(folder.join("server.pem"), leaf.pem() + &key.serialize_pem())?;
    Ok(())
}
