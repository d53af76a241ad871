//! Readiness, in the protocol of sd_notify(3): a daemon says `READY=1` once it serves. The same
//! word reaches systemd or `postern run`, whichever started it.

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// The line to whoever started this daemon.
#[derive(Debug)]
pub struct Starter {
    /// `None`: nobody asked to be told.
    socket: Option<UnixDatagram>,
}

impl Starter {
    /// Opens the line, if there is one. To be called before privileges are dropped: the socket may
    /// be in a folder that only root may write to.
    pub fn reach() -> Self {
        let Some(path) = std::env::var_os(SOCKET_VARIABLE) else { return Self { socket: None } };
        let connected = UnixDatagram::unbound().and_then(|socket| {
            connect(&socket, Path::new(&path))?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => Self { socket: Some(socket) },
            Err(error) => {
                tracing::warn!(%error, socket = ?path, "nobody can be told that this daemon is ready");
                Self { socket: None }
            }
        }
    }

    /// Says that the daemon serves now.
    pub fn ready(&self) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(b"READY=1")
        {
            tracing::warn!(%error, "cannot say that this daemon is ready");
        }
    }
}

fn connect(socket: &UnixDatagram, path: &Path) -> io::Result<()> {
    // A leading @ stands for the NUL of an abstract address (sd_notify(3)).
    match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
        }
        None => socket.connect(path),
    }
}

/// Where `postern run` hears that a child is ready.
#[derive(Debug)]
pub(super) struct ReadySocket {
    socket: tokio::net::UnixDatagram,
    path: PathBuf,
}

impl ReadySocket {
    pub(super) fn bind(path: PathBuf) -> io::Result<Self> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { socket: tokio::net::UnixDatagram::bind(&path)?, path })
    }

    /// What a child needs in its environment.
    pub(super) fn variable(&self) -> (&'static str, &Path) {
        (SOCKET_VARIABLE, &self.path)
    }

    /// Waits for the next `READY=1`.
    pub(super) async fn ready(&self) -> io::Result<()> {
        let mut text = [0; 4096];
        loop {
            let length = self.socket.recv(&mut text).await?;
            if text[..length].split(|&b| b == b'\n').any(|line| line == b"READY=1") {
                return Ok(());
            }
        }
    }
}

impl Drop for ReadySocket {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_is_heard_and_noise_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let socket = ReadySocket::bind(dir.path().join("notify.sock")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"STATUS=waiting", socket.variable().1).unwrap();
        connect(&sender, socket.variable().1).unwrap();
        Starter { socket: Some(sender) }.ready();
        socket.ready().await.unwrap();
    }
}
