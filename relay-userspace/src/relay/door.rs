//! The two ways in: by a port, from anywhere; by a Unix socket, from this machine.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::{control::peer, socket_file::SocketFile};

/// A connection before TLS.
pub(super) type Socket = Either<TcpStream, UnixStream>;

/// Stands for the addresses that a Unix socket has not, wherever one is asked for.
const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What connections are accepted on.
#[derive(Debug)]
pub(super) enum Door {
    Network(TcpListener),
    Local {
        socket: UnixListener,
        /// Goes with it.
        #[expect(dead_code, reason = "held for its end alone")]
        file: SocketFile,
    },
}

/// Who is at the door.
#[derive(Debug)]
pub(super) struct Guest {
    pub stream: Socket,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Of this machine, by a Unix socket (uid).
    pub user: Option<u32>,
}

impl Door {
    /// `None`: it went before anything could be learned of it.
    ///
    /// # Errors
    /// As accept(2).
    pub(super) async fn accept(&self) -> io::Result<Option<Guest>> {
        let who = match self {
            Self::Network(door) => {
                let (stream, peer) = door.accept().await?;
                stream.local_addr().map(|local| (Either::Left(stream), peer, local, None))
            }
            Self::Local { socket, .. } => {
                let (stream, _) = socket.accept().await?;
                peer::of(&stream)
                    .map(|peer| (Either::Right(stream), NO_ADDRESS, NO_ADDRESS, Some(peer.uid)))
            }
        };
        Ok(match who {
            Ok((stream, peer, local, user)) => Some(Guest { stream, peer, local, user }),
            Err(error) => {
                tracing::debug!(%error, "gone before it was served");
                None
            }
        })
    }
}

/// For system calls that the runtime does not know.
pub(super) fn descriptor(socket: &Socket) -> RawFd {
    match socket {
        Either::Left(stream) => stream.as_raw_fd(),
        Either::Right(stream) => stream.as_raw_fd(),
    }
}
