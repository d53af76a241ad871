//! A Unix socket with a name in the file system: one daemon has it, and who may connect is settled
//! before anybody can.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, lchown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, Flock, FlockArg},
    sys::stat::{FchmodatFlags, Mode, fchmodat},
};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

/// Why a socket cannot be opened.
#[derive(Debug, Error)]
pub enum BindError {
    #[error("another postern is already serving {path}; stop it first")]
    Running { path: PathBuf },
    #[error("{path} exists and is no socket; move it away")]
    NotASocket { path: PathBuf },
    #[error("cannot open the socket {path}: its folder does not exist; make it")]
    NoFolder { path: PathBuf },
    #[error("cannot open the socket {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Who may connect, and how many may wait to be accepted.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Permission bits of the file; to connect is to write (unix(7)).
    pub mode: u32,
    /// Group of the file; `None`: that of this process.
    pub group: Option<u32>,
    pub backlog: i32,
}

/// A bound socket that listens. Its file goes when it is dropped.
#[derive(Debug)]
pub struct SocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// Held for as long as the socket is ours; a daemon that died holds none.
    _lock: Flock<fs::File>,
}

impl SocketFile {
    /// Opens the socket. What a dead daemon left behind is replaced.
    ///
    /// # Errors
    /// A living daemon has it, something else is in the way, or the system refuses.
    pub fn bind(path: &Path, access: Access) -> Result<Self, BindError> {
        let failed = |source| BindError::Io { path: path.to_owned(), source };
        let lock_path = path.with_extension("lock");
        let lock =
            fs::File::options().create(true).append(true).open(&lock_path).map_err(|error| {
                match error.kind() {
                    io::ErrorKind::NotFound => BindError::NoFolder { path: path.to_owned() },
                    _ => failed(error),
                }
            })?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    Errno::EWOULDBLOCK => BindError::Running { path: path.to_owned() },
                    errno => failed(errno.into()),
                },
            )?;
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
            Ok(_) => return Err(BindError::NotASocket { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = listen(path, access).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// To be served by the runtime, in which this is called.
    ///
    /// # Errors
    /// The runtime does not take it.
    pub fn serve(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

/// Nobody can connect between `bind` and `listen`, so nobody sees another mode or group. Should the
/// folder be someone's who puts a link in the socket's place, what that points to stays as it is.
fn listen(path: &Path, access: Access) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    if access.group.is_some() {
        lchown(path, None, access.group)?;
    }
    let mode = Mode::from_bits_truncate(access.mode);
    fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)?;
    socket.listen(access.backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If it cannot be removed, the next start replaces it.
        let _ = fs::remove_file(&self.path);
    }
}
