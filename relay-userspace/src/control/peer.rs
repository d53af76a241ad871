//! Who is at the other end of a Unix socket, and whether they may speak.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{getsockopt, sockopt};

/// Groups that are asked for at first; the kernel says how many there are if that was too few.
const GROUPS_FIRST: usize = 64;
/// The kernel's NGROUPS_MAX.
const GROUPS_MAX: usize = 65_536;

/// The credentials a peer had when it connected. The kernel vouches for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub uid: u32,
    /// The primary group first, then the supplementary ones.
    pub gids: Vec<u32>,
}

/// Whom a control socket listens to: root, the daemon's own user, and one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub own_uid: u32,
    pub group: Option<u32>,
}

impl Access {
    /// For this process, and the members of `group`.
    pub fn new(group: Option<u32>) -> Self {
        Self { own_uid: nix::unistd::geteuid().as_raw(), group }
    }

    pub fn permits(&self, peer: &Peer) -> bool {
        peer.uid == 0
            || peer.uid == self.own_uid
            || self.group.is_some_and(|group| peer.gids.contains(&group))
    }
}

/// The credentials of the process that connected.
///
/// # Errors
/// The kernel does not say (SO_PEERCRED, SO_PEERGROUPS; unix(7)).
pub fn of(socket: &(impl AsFd + AsRawFd)) -> io::Result<Peer> {
    let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
    let mut gids = vec![credentials.gid()];
    gids.extend(supplementary_groups(socket)?);
    Ok(Peer { uid: credentials.uid(), gids })
}

fn supplementary_groups(socket: &impl AsRawFd) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; GROUPS_FIRST];
    loop {
        let mut bytes =
            libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open for as long as `socket` is borrowed, `groups` has `bytes`
        // writable bytes, and the kernel writes no more than that and its count to `bytes`.
        let failed = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        } != 0;
        let count = usize::try_from(bytes).unwrap_or(usize::MAX) / size_of::<libc::gid_t>();
        if !failed {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Too few: the kernel has put the size that it needs into `bytes`.
        let grown = error.raw_os_error() == Some(libc::ERANGE)
            && count > groups.len()
            && count <= GROUPS_MAX;
        if !grown {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn this_process_is_known_to_itself_with_its_groups() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = of(&ours).unwrap();
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(peer.gids[0], nix::unistd::getegid().as_raw());
        let mut own: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        let mut told = peer.gids[1..].to_vec();
        own.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, own);
    }

    #[test]
    fn root_the_own_user_and_the_group_may_speak_and_nobody_else() {
        let access = Access { own_uid: 900, group: Some(50) };
        let peer = |uid, gids: &[u32]| Peer { uid, gids: gids.to_vec() };
        assert!(access.permits(&peer(0, &[0])));
        assert!(access.permits(&peer(900, &[900])));
        assert!(access.permits(&peer(1000, &[50])));
        assert!(access.permits(&peer(1000, &[1000, 4, 50])));
        assert!(!access.permits(&peer(1000, &[1000, 0])));
        assert!(!Access { group: None, ..access }.permits(&peer(1000, &[50])));
    }
}
