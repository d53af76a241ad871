//! The socket by which programs of this machine hand in mail (RFC 2033). It is opened as root, like
//! the ports.

use anyhow::{Context, bail};
use nix::unistd::{Group, User};
use relay_core::policy::relay::LocalUser;

use crate::{
    config::Lmtp,
    socket_file::{Access, SocketFile},
};

/// As of a port, see [`super::listener`].
const BACKLOG: i32 = 1024;

/// The open socket.
#[derive(Debug)]
pub struct Local {
    pub socket: SocketFile,
    /// Whose mail may go anywhere.
    pub users: Vec<LocalUser>,
}

impl Local {
    /// # Errors
    /// One sentence: a user or a group does not exist, or the socket cannot be had.
    pub fn open(lmtp: &Lmtp) -> anyhow::Result<Self> {
        let users = lmtp.relay_for_users.iter().map(|name| user(name)).collect::<Result<_, _>>()?;
        let group = match &lmtp.group {
            Some(name) => Some(group(name)?),
            None => None,
        };
        let access = Access { mode: lmtp.mode, group, backlog: BACKLOG };
        let socket = SocketFile::bind(&lmtp.socket, access).context("lmtp.socket")?;
        Ok(Self { socket, users })
    }
}

fn user(name: &str) -> anyhow::Result<LocalUser> {
    let found = User::from_name(name).with_context(|| format!("looking up user {name}"))?;
    let Some(found) = found else {
        bail!("lmtp.relay_for_users: there is no user {name:?} on this machine; make or remove it");
    };
    Ok(LocalUser { uid: found.uid.as_raw(), name: name.to_owned() })
}

fn group(name: &str) -> anyhow::Result<u32> {
    let found = Group::from_name(name).with_context(|| format!("looking up group {name}"))?;
    let Some(found) = found else {
        bail!("lmtp.group: there is no group {name:?} on this machine; make it or name another");
    };
    Ok(found.gid.as_raw())
}
