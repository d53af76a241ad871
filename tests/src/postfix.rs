//! A real Postfix with a configuration, a queue and a log of its own, so that none of the
//! machine's is touched.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    netns::Netns,
    process::{output, until},
};

/// A running Postfix; ended with this.
#[derive(Debug)]
pub struct Postfix {
    config: PathBuf,
    queue: PathBuf,
    net: PathBuf,
}

impl Postfix {
    /// Starts Postfix in a namespace, listening on `address:25`. `settings` are lines of main.cf.
    ///
    /// # Errors
    /// Postfix is not installed, or does not listen.
    pub fn start(
        ns: &Netns,
        folder: &Path,
        address: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let config = folder.join("conf");
        for name in ["conf", "queue", "data"] {
            fs::create_dir_all(folder.join(name))?;
        }
        output(Command::new("chown").arg("postfix").arg(folder.join("data")))?.success()?;
        fs::write(config.join("main.cf"), main_cf(folder, address, settings)?)?;
        fs::write(config.join("master.cf"), master_cf()?)?;
        let postfix = Self { config, queue: folder.join("queue"), net: ns.path() };
        output(&mut postfix.command("start"))?.success()?;
        until("Postfix to listen", || {
            let sockets = ns.run("ss", &["-Hltn", "sport = :25"])?;
            Ok(sockets.contains(&format!("{address}:25")).then_some(()))
        })
        .with_context(|| fs::read_to_string(folder.join("log")).unwrap_or_default())?;
        Ok(postfix)
    }

    /// Waits until nothing is on its way through this Postfix any more.
    ///
    /// # Errors
    /// A message stays in its queue.
    pub fn until_idle(&self) -> Result<()> {
        until("Postfix to deliver all it has", || {
            // In the order in which a message goes through them, so that none slips past.
            for stage in ["maildrop", "incoming", "active", "deferred"] {
                if holds_a_file(&self.queue.join(stage))? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    /// Its sendmail(1), to which arguments and a message are still to be given.
    pub fn sendmail(&self) -> Command {
        let mut command = self.inside("sendmail");
        command.arg("-C").arg(&self.config);
        command
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = self.inside("postfix");
        command.arg("-c").arg(&self.config).arg(verb);
        command
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.net.display())).arg("--").arg(program);
        command
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ended_already = self.command("stop").output();
    }
}

fn holds_a_file(folder: &Path) -> Result<bool> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A file may go between its listing and this look at it: it is under the next stage then.
        let Ok(kind) = entry.file_type() else { return Ok(true) };
        if !kind.is_dir() || holds_a_file(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn main_cf(folder: &Path, address: &str, settings: &[(&str, &str)]) -> Result<String> {
    let folder = folder.display();
    let mut text = format!(
        "compatibility_level = 3.6\nqueue_directory = {folder}/queue\n\
         data_directory = {folder}/data\nmail_owner = postfix\nsetgid_group = postdrop\n\
         myhostname = postfix.test\nmydestination =\ninet_interfaces = {address}\n\
         inet_protocols = ipv4\nsmtp_host_lookup = native\nsmtpd_peername_lookup = no\n\
         maillog_file_prefixes = {folder}\nmaillog_file = {folder}/log\nalias_maps =\n\
         alias_database =\nlocal_recipient_maps =\n"
    );
    for (name, value) in settings {
        writeln!(text, "{name} = {value}")?;
    }
    Ok(text)
}

/// Debian's own, without chroot (which needs files copied into the queue) and foreign deliveries.
fn master_cf() -> Result<String> {
    let file = ["/etc/postfix/master.cf", "/usr/share/postfix/master.cf.dist"];
    let text = file.iter().find_map(|file| fs::read_to_string(file).ok());
    let text = text.context("no master.cf; `cargo xtask setup` installs Postfix")?;
    let mut kept = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.starts_with(' ')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, kind, private, unprivileged, _chroot, wakeup, processes, program] = fields[..]
        else {
            continue;
        };
        if program != "pipe" {
            let (before, after) =
                ([name, kind, private, unprivileged], [wakeup, processes, program]);
            writeln!(kept, "{} n {}", before.join(" "), after.join(" "))?;
        }
    }
    Ok(kept)
}
