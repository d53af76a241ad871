//! Installing Debian packages: only missing ones, never removing any, never starting a daemon.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Setup;
use crate::privilege::Privilege;
use crate::workspace::{find_program, output_of, run};

/// Names a file to read in place of /etc/os-release, to try another distribution.
const OS_RELEASE: &str = "XTASK_OS_RELEASE";

/// Debian's package manager, or why it cannot be used.
pub(super) struct Apt {
    usable: Result<(), String>,
    updated: bool,
}

impl Apt {
    pub(super) fn new(privilege: Privilege) -> Self {
        let file = std::env::var_os(OS_RELEASE)
            .map_or_else(|| PathBuf::from("/etc/os-release"), PathBuf::from);
        let usable = usable(&file, privilege, find_program("apt-get").is_some());
        Self { usable, updated: false }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.usable.is_ok()
    }
}

/// Whether packages can be installed here: a distribution with Debian's packages, and root.
fn usable(os_release: &Path, privilege: Privilege, apt_get: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(os_release).unwrap_or_default();
    if !apt_get || !debian_like(&text) {
        let name = field(&text, "PRETTY_NAME").unwrap_or_else(|| "this system".to_owned());
        return Err(format!("{name} has no apt-get, find them under its own names"));
    }
    if privilege == Privilege::None {
        return Err("this user is not root and has no working sudo".to_owned());
    }
    Ok(())
}

fn debian_like(os_release: &str) -> bool {
    ["ID", "ID_LIKE"]
        .iter()
        .filter_map(|key| field(os_release, key))
        .any(|value| value.split(' ').any(|word| word == "debian" || word == "ubuntu"))
}

/// A value of os-release(5), without its quotes.
fn field(os_release: &str, key: &str) -> Option<String> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// Run as root by sh with the packages as arguments.
///
/// The policy file, present for the duration unless the machine has one of its own, makes
/// invoke-rc.d and deb-systemd-invoke leave daemons alone. The answer for Postfix gives it a
/// configuration that would listen on loopback only.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
case " $* " in
    *" postfix "*)
        echo 'postfix postfix/main_mailer_type select Local only' | debconf-set-selections ;;
esac
apt-get -o Dpkg::Use-Pty=0 install --quiet --quiet --yes --no-remove --no-install-recommends "$@" > /dev/null
"#;

impl Setup {
    /// Installs packages; `purpose` says what they bring. Returns whether they are there now;
    /// where not, it has been noted what to install.
    pub(super) fn install(&mut self, packages: &[&str], purpose: &str) -> Result<bool> {
        let by_hand = format!(
            "apt-get install --no-install-recommends {}",
            packages
                .iter()
                .copied()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(" ")
        );
        let refusal = match &self.apt.usable {
            Ok(()) if self.check => None,
            Ok(()) => return self.install_now(packages, &by_hand, purpose),
            Err(reason) => Some(reason),
        };
        let reason = refusal.map_or(String::new(), |reason| format!(" ({reason})"));
        self.missing.push(format!("{purpose}{reason}; on Debian, as root: {by_hand}"));
        Ok(false)
    }

    /// Updates the lists of packages, once.
    pub(super) fn update_lists(&mut self) -> Result<()> {
        if self.apt.updated || !self.apt.is_usable() {
            return Ok(());
        }
        self.apt.updated = true;
        self.act("apt-get update");
        let mut update = self.privilege.command("apt-get", &[], "apt-get update")?;
        if let Err(error) = run(update.args(["update", "--quiet", "--quiet"])) {
            // The lists of the last update may still do.
            self.say(&format!("{error}; trying with the package lists that are there"));
        }
        Ok(())
    }

    fn install_now(&mut self, packages: &[&str], by_hand: &str, purpose: &str) -> Result<bool> {
        self.update_lists()?;
        self.act(&format!("{by_hand}   # {purpose}"));
        let mut install = self.privilege.command("sh", &[], "installing packages")?;
        install.args(["-c", INSTALL, "sh"]).args(packages);
        if let Err(error) = run(&mut install).map_err(|_| by_hand) {
            self.missing.push(format!(
                "{purpose}: apt-get refused (above); packages are never removed to make room. \
                 Settle it, then as root: {error}"
            ));
            return Ok(false);
        }
        Ok(true)
    }
}

/// Whether the archive has a package that could be installed.
pub(super) fn is_available(package: &str) -> bool {
    let policy = output_of(std::process::Command::new("apt-cache").args(["policy", package]));
    policy.is_some_and(|text| has_candidate(&text))
}

fn has_candidate(policy: &str) -> bool {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .is_some_and(|version| version != "(none)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEDORA: &str = "NAME=\"Fedora Linux\"\nID=fedora\nPRETTY_NAME=\"Fedora Linux 44\"\n";

    fn usable_with(text: &str, privilege: Privilege) -> Result<(), String> {
        let file =
            std::env::temp_dir().join(format!("os-release-{}-{}", std::process::id(), text.len()));
        std::fs::write(&file, text).unwrap();
        let answer = usable(&file, privilege, true);
        std::fs::remove_file(&file).unwrap();
        answer
    }

    #[test]
    fn another_distribution_is_named() {
        let reason = usable_with(FEDORA, Privilege::Root).unwrap_err();
        assert!(reason.starts_with("Fedora Linux 44 has no apt-get"), "{reason}");
    }

    #[test]
    fn debian_and_its_children_will_do() {
        for text in
            ["ID=debian\n", "ID=ubuntu\nID_LIKE=debian\n", "ID=x\nID_LIKE=\"ubuntu debian\""]
        {
            assert_eq!(usable_with(text, Privilege::Sudo), Ok(()), "{text}");
        }
        assert!(!debian_like("ID=notdebian\nVERSION=debian\n"));
    }

    #[test]
    fn without_root_nothing_is_installed() {
        let reason = usable_with("ID=debian \n\n", Privilege::None).unwrap_err();
        assert!(reason.contains("no working sudo"), "{reason}");
        let file = Path::new("/no/such/file");
        assert!(usable(file, Privilege::Root, true).is_err(), "an unknown system is not Debian");
    }

    #[test]
    fn reads_apt_caches_policy() {
        assert!(has_candidate("x:\n  Installed: (none)\n  Candidate: 1.96.0\n"));
        assert!(!has_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }

    #[test]
    fn the_installing_script_is_sh() {
        let parsed = std::process::Command::new("sh").args(["-n", "-c", INSTALL]).status().unwrap();
        assert!(parsed.success());
        for promise in ["--no-remove", "--no-install-recommends", "exit 101"] {
            assert!(INSTALL.contains(promise));
        }
    }
}
