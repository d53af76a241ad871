//! OpenSMTPD and Exim out of their Debian packages, which cannot be installed beside Postfix:
//! `cargo xtask setup` unpacks them into a folder of the build, named by `POSTERN_PEERS`. Each is
//! started in a mount namespace of its own, where its files, its users and its configuration lie
//! over the machine's own, which stay as they are.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::netns::Netns;
use crate::process::{Process, until};
use crate::world::World;

pub(crate) const CERTIFICATE: &str = "peer.crt";
pub(crate) const KEY: &str = "peer.key";

/// A mail server that comes out of a package. It takes mail for `inside.test` and hands it on.
#[derive(Debug)]
pub struct Packaged {
    pub(crate) name: &'static str,
    /// Below `POSTERN_PEERS`.
    folder: &'static str,
    /// What is started as root, in the foreground.
    command: &'static str,
    /// Users with their groups, and the numbers of both.
    accounts: &'static [(&'static str, u32)],
    /// Folders besides its spool, and whose they are.
    folders: &'static [(&'static str, u32)],
    /// On the disk where Postern and Postfix have theirs.
    spool: (&'static str, u32),
    config_file: &'static str,
    config: &'static str,
}

pub(crate) const OPENSMTPD: Packaged = Packaged {
    name: "OpenSMTPD",
    folder: "opensmtpd",
    command: "smtpd -d",
    accounts: &[("opensmtpd", 64_801), ("opensmtpq", 64_802)],
    folders: &[("var/lib/opensmtpd/empty", 0)],
    spool: ("var/spool/smtpd", 0),
    config_file: "etc/smtpd.conf",
    config: "smtp limit max-mails 1000000\npki peer cert \"/etc/peer.crt\"\npki peer key \"/etc/peer.key\"\n\
             listen on {address} tls pki peer hostname peer.test\n\
             action out relay host smtp+notls://{next}\n\
             match from any for domain \"inside.test\" action out\n",
};

pub const EXIM: Packaged = Packaged {
    name: "Exim",
    folder: "exim",
    command: "exim4 -bdf",
    accounts: &[("Debian-exim", 64_803)],
    folders: &[("var/log/exim4", 64_803), ("etc/exim4", 0)],
    spool: ("var/spool/exim4", 64_803),
    config_file: "etc/exim4/exim4.conf",
    // A message is delivered at once, however many came by the same connection.
    config: "primary_hostname = peer.test\nlocal_interfaces = {address}\ndaemon_smtp_ports = 25\n\
             keep_environment =\nlog_file_path = /var/log/exim4/%slog\nsmtp_accept_max = 1000\n\
             smtp_accept_queue_per_connection = 0\nsmtp_connect_backlog = 1000\n\
             smtp_accept_max_per_connection = 100000\n\
             tls_advertise_hosts = *\ntls_certificate = /etc/peer.crt\ntls_privatekey = /etc/peer.key\n\
             acl_smtp_rcpt = check\nbegin acl\ncheck:\n  accept domains = inside.test\n\
             \x20 deny message = relay not permitted\nbegin routers\nout:\n  driver = manualroute\n\
             \x20 domains = inside.test\n  route_list = * {next}\n  transport = out\n\
             begin transports\nout:\n  driver = smtp\n",
};

/// Puts a certificate there for those that want one to offer TLS.
///
/// # Errors
/// It cannot be written.
pub fn make_certificate(world: &World) -> Result<()> {
    let made = rcgen::generate_simple_self_signed(vec!["peer.test".to_owned()])?;
    fs::write(world.path(CERTIFICATE), made.cert.pem())?;
    fs::write(world.path(KEY), made.signing_key.serialize_pem())?;
    Ok(fs::set_permissions(world.path(KEY), fs::Permissions::from_mode(0o600))?)
}

/// As root in a new mount namespace: the folder to work in, the spool, the command.
const SCRIPT: &str = r#"
set -eu
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/all"
for kept in proc dev; do mount --rbind "/$kept" "$1/all/$kept"; done
mount --bind "$1/spool" "$1/all/$2"
exec chroot "$1/all" sh -c "exec $3"
"#;

impl Packaged {
    /// What its package says.
    pub(crate) fn version(&self) -> String {
        let peers = std::env::var_os("POSTERN_PEERS").map(PathBuf::from).unwrap_or_default();
        let version = fs::read_to_string(peers.join(self.folder).join("version"));
        version.unwrap_or_default().trim().to_owned()
    }

    /// Starts it, listening on port 25 of an address that the namespace has, with `next` as its
    /// next hop, and the certificate that [`make_certificate`] has put beside `folder`.
    ///
    /// # Errors
    /// Its package is not there, or it does not listen.
    pub fn start(&self, ns: &Netns, folder: &Path, address: &str, next: &str) -> Result<Process> {
        let unpacked = std::env::var_os("POSTERN_PEERS").map(PathBuf::from);
        let unpacked = unpacked.map(|peers| peers.join(self.folder)).filter(|path| path.is_dir());
        let unpacked = unpacked.context(
            "its package is not unpacked; `cargo xtask setup` does so where apt-get can",
        )?;
        self.lay_out(&unpacked, folder, address, next)?;
        let log = fs::File::create(folder.join("log"))?;
        let mut command = ns.command("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(folder);
        command.args([self.spool.0, self.command]).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::start(&mut command)?;
        let said = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        until("it to listen", || {
            if let Some(status) = process.try_wait()? {
                bail!("it ended with {status}: {}", said().trim());
            }
            let sockets = ns.run("ss", &["-Hltn", "sport = :25"])?;
            Ok(sockets.contains(&format!("{address}:25")).then_some(()))
        })?;
        Ok(process)
    }

    fn lay_out(&self, unpacked: &Path, folder: &Path, address: &str, next: &str) -> Result<()> {
        for name in ["upper/etc", "work", "all", "spool"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let upper = folder.join("upper");
        // Not all of the package: what it has in /lib would hide the machine's.
        let copied = Command::new("cp").arg("-a").arg(unpacked.join("usr")).arg(&upper).status()?;
        anyhow::ensure!(copied.success(), "copying {} failed", unpacked.display());
        let (mut users, mut groups) =
            (fs::read_to_string("/etc/passwd")?, fs::read_to_string("/etc/group")?);
        for (name, id) in self.accounts {
            users += &format!("{name}:x:{id}:{id}::/nonexistent:/usr/sbin/nologin\n");
            groups += &format!("{name}:x:{id}:\n");
        }
        fs::write(upper.join("etc/passwd"), users)?;
        fs::write(upper.join("etc/group"), groups)?;
        // As Postfix is configured here: no client is looked up by its address.
        fs::write(upper.join("etc/resolv.conf"), "lookup file\n")?;
        for (name, owner) in self.folders {
            fs::create_dir_all(upper.join(name))?;
            chown(upper.join(name), Some(*owner), Some(*owner))?;
        }
        let spool = folder.join("spool");
        fs::set_permissions(&spool, fs::Permissions::from_mode(0o711))?;
        fs::create_dir_all(upper.join(self.spool.0))?;
        chown(spool, Some(self.spool.1), Some(self.spool.1))?;
        for (name, mode) in [(CERTIFICATE, 0o644), (KEY, 0o640)] {
            let path = upper.join("etc").join(name);
            fs::copy(folder.with_file_name(name), &path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
            chown(path, Some(0), Some(self.accounts[0].1))?;
        }
        let config = self.config.replace("{address}", address).replace("{next}", next);
        Ok(fs::write(upper.join(self.config_file), config)?)
    }
}
