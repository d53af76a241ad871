//! Mail servers to test with and to measure ours beside whose packages cannot be installed: Debian
//! lets only one be there at a time, and the tests want Postfix. Their packages are unpacked into a
//! folder of the build, with the libraries they need that are not here; nothing on the machine
//! changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Setup;
use crate::workspace::{find_program, output_of, run, target_dir};

/// A server: the folder it is unpacked into, its Debian package, its program there.
#[derive(Clone, Copy)]
pub(super) struct Mailer {
    folder: &'static str,
    package: &'static str,
    program: &'static str,
}

pub(super) const EXIM: Mailer =
    Mailer { folder: "exim", package: "exim4-daemon-light", program: "usr/sbin/exim4" };
const OPENSMTPD: Mailer =
    Mailer { folder: "opensmtpd", package: "opensmtpd", program: "usr/sbin/smtpd" };
pub(super) const ALL: [Mailer; 2] = [OPENSMTPD, EXIM];

/// Written last, so that a folder that has it is whole.
const VERSION: &str = "version";

/// Where they are unpacked.
pub(crate) fn folder() -> PathBuf {
    target_dir().join("peers")
}

/// Unpacks what is not there yet, and notes what cannot be had.
pub(super) fn provide(setup: &mut Setup, mailers: &[Mailer]) {
    let here = ["apt-get", "apt-cache", "dpkg-deb", "dpkg-query"];
    for mailer in mailers {
        let place = folder().join(mailer.folder);
        if place.join(VERSION).is_file() {
            continue;
        }
        if !here.iter().all(|program| find_program(program).is_some()) {
            let package = mailer.package;
            setup.missing.push(format!("{package}, to test with and measure beside, is Debian's"));
            continue;
        }
        if setup.check {
            setup
                .missing
                .push(format!("{} is to be unpacked, by `cargo xtask setup`", mailer.package));
            continue;
        }
        setup.changed = true;
        // On standard error: the output of the benchmark may be read by a program.
        eprintln!("setup: unpacking {} into {}", mailer.package, place.display());
        let unpacked = setup.update_lists().and_then(|()| unpack(mailer, &place));
        if let Err(error) = unpacked {
            setup
                .missing
                .push(format!("{}, to test with and measure beside: {error:#}", mailer.package));
        }
    }
}

fn unpack(mailer: &Mailer, place: &Path) -> Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    let downloads = place.join("downloads");
    fs::create_dir_all(&downloads)?;
    let file = download(mailer.package, &downloads)?;
    run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(place))?;
    for library in libraries(&field(&file, "Depends")?) {
        if !is_installed(&library) {
            let library = download(&library, &downloads)?;
            run(Command::new("dpkg-deb").arg("-x").arg(&library).arg(place))?;
        }
    }
    let version = format!("{} {}", mailer.package, field(&file, "Version")?.trim());
    let program = place.join(mailer.program);
    anyhow::ensure!(program.is_file(), "the package has no {}", mailer.program);
    fs::remove_dir_all(&downloads)?;
    Ok(fs::write(place.join(VERSION), version)?)
}

fn download(package: &str, into: &Path) -> Result<PathBuf> {
    let folder = into.join(package);
    fs::create_dir_all(&folder)?;
    let mut apt = Command::new("apt-get");
    // As the user who builds: apt's own user cannot write there.
    apt.args(["-o", "APT::Sandbox::User=", "--quiet", "--quiet", "download", package]);
    run(apt.current_dir(&folder))?;
    let mut files = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
    files.next().with_context(|| format!("apt-get downloaded no {package}"))
}

fn field(package: &Path, name: &str) -> Result<String> {
    let text = output_of(Command::new("dpkg-deb").arg("-f").arg(package).arg(name));
    text.with_context(|| format!("{} is no package", package.display()))
}

fn is_installed(package: &str) -> bool {
    let status = ["-W", "-f", "${Status}", package];
    let status = output_of(Command::new("dpkg-query").args(status));
    status.is_some_and(|text| text.ends_with(" installed"))
}

/// Names of the libraries among dependencies, versions and alternatives apart.
fn libraries(depends: &str) -> Vec<String> {
    let names = depends.split(',').filter_map(|one| one.split_whitespace().next());
    names.filter(|name| name.starts_with("lib")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libraries_are_taken_from_dependencies() {
        let depends = "libc6 (>= 2.36), debconf (>= 0.5) | debconf-2.0, libidn12 (>= 0.6)\n";
        assert_eq!(libraries(depends), ["libc6", "libidn12"]);
        assert!(libraries("").is_empty());
    }

    #[test]
    fn a_package_of_the_base_system_is_installed() {
        if find_program("dpkg-query").is_some() {
            assert!(is_installed("dpkg") && !is_installed("no-such-package-anywhere"));
        }
    }
}
