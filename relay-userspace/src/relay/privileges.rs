//! What the relay may do: nothing that root may. It binds its ports, then becomes its own user for
//! good.

use std::path::Path;

use anyhow::{Context, bail};
use nix::unistd::{self, Gid, Group, Uid, User};

/// Whom the relay becomes, looked up before anything is opened.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    pub uid: Uid,
    pub gid: Gid,
}

impl Identity {
    /// # Errors
    /// The user or the group does not exist; the sentence says how to make it.
    pub fn find(user: &str, group: &str) -> anyhow::Result<Self> {
        let found = User::from_name(user).with_context(|| format!("looking up user {user}"))?;
        let Some(found) = found else {
            bail!(
                "there is no user {user:?} for the relay to drop to; make one with `useradd \
                 --system --user-group --no-create-home --shell /usr/sbin/nologin {user}`, or \
                 name another as server.user"
            );
        };
        if found.uid.is_root() {
            bail!("server.user is {user:?}, which is root; name a user without privileges");
        }
        let group_found =
            Group::from_name(group).with_context(|| format!("looking up group {group}"))?;
        let Some(group_found) = group_found else {
            bail!(
                "there is no group {group:?} for the control sockets; make one with `groupadd \
                 --system {group}`, or name another as server.group"
            );
        };
        Ok(Self { uid: found.uid, gid: group_found.gid })
    }

    /// Makes a folder that belongs to this identity alone, or takes over one that is there.
    ///
    /// # Errors
    /// The folder cannot be made, or given away.
    pub fn own_folder(self, path: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("making the folder {}", path.display()))?;
        set_mode(path, 0o700)?;
        if Uid::effective().is_root() {
            for entry in
                std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?
            {
                let path = entry?.path();
                // A link is given away itself, never what it points to.
                std::os::unix::fs::lchown(&path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
                    .with_context(|| format!("giving {} to the relay's user", path.display()))?;
            }
            unistd::chown(path, Some(self.uid), Some(self.gid))
                .with_context(|| format!("giving {} to the relay's user", path.display()))?;
        }
        Ok(())
    }

    /// Becomes this identity: groups, group, user, then every capability and the way back to any.
    /// Only before the first thread is started, since each thread has identities of its own.
    ///
    /// # Errors
    /// A step failed; the caller must end, for it may still be root.
    pub fn assume(self) -> anyhow::Result<()> {
        if !Uid::effective().is_root() {
            tracing::info!(uid = unistd::getuid().as_raw(), "not root: the relay keeps its user");
            return Ok(());
        }
        for capability in caps::all() {
            // A kernel without this capability has nothing to drop.
            if caps::has_cap(None, caps::CapSet::Bounding, capability).unwrap_or(false) {
                caps::drop(None, caps::CapSet::Bounding, capability)
                    .with_context(|| format!("dropping {capability} from the bounding set"))?;
            }
        }
        unistd::setgroups(&[self.gid]).context("dropping root's groups")?;
        unistd::setresgid(self.gid, self.gid, self.gid).context("becoming the relay's group")?;
        unistd::setresuid(self.uid, self.uid, self.uid).context("becoming the relay's user")?;
        nix::sys::prctl::set_no_new_privs().context("giving up new privileges")?;
        if unistd::setuid(Uid::from_raw(0)).is_ok() {
            bail!("the relay could become root again after dropping to uid {}", self.uid);
        }
        let kept = caps::read(None, caps::CapSet::Permitted).context("reading capabilities")?;
        if !kept.is_empty() {
            bail!("the relay still holds {kept:?} after dropping to uid {}", self.uid);
        }
        Ok(())
    }
}

/// # Errors
/// The mode cannot be set.
pub fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}
