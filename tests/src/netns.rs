//! Network namespaces and veth pairs that a test makes for itself and takes away again.
//!
//! Nothing here touches the namespace the process runs in. Needs root and iproute2.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// One network namespace, under a name in /run/netns that no other process uses. Dropping it
/// removes it, also while a panic unwinds.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback up. `label` says in `ip netns` output what it is for.
    ///
    /// # Errors
    /// Not root, or iproute2 missing: one sentence that says so.
    pub fn new(label: &str) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        ensure!(
            nix::unistd::geteuid().is_root(),
            "making network namespaces needs root: run this test as root (sudo -E cargo xtask test)"
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("postern-{}-{number}-{label}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let ns = Self { name };
        ns.run("ip", &["link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// The name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace, for `nsenter --net=` and setns(2).
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A command that will run inside the namespace. `ip netns exec` would also remount /sys and
    /// so hide bpffs; `nsenter --net` changes the network alone, and its pid becomes the program's.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a command inside to its end, and returns what it wrote on its standard output.
    ///
    /// # Errors
    /// It cannot be started or ends with a non-zero status; its standard error is in the message.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        run(self.command(program).args(args))
    }

    /// Runs a closure inside, on a thread of its own: sockets it opens belong to the namespace and
    /// may leave the thread. A panic inside continues in the caller.
    ///
    /// # Errors
    /// The namespace is gone, or entering it is refused.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(self.path()).with_context(|| format!("opening {}", self.name))?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering {}", self.name))?;
                Ok(inside())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Gives an interface an address ("10.0.0.1/24", "2001:db8::1/64"). Duplicate address detection
    /// is left out, so that a v6 address serves at once.
    pub fn addr(&self, interface: &str, address: &str) -> Result<()> {
        let mut args = vec!["addr", "add", address, "dev", interface];
        if address.contains(':') {
            args.push("nodad");
        }
        self.run("ip", &args).map(drop)
    }

    /// Adds a route ("default", "10.1.0.0/16", "2001:db8:1::/48") through a gateway.
    pub fn route(&self, destination: &str, via: &str) -> Result<()> {
        self.run("ip", &["route", "add", destination, "via", via]).map(drop)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A namespace that cannot be removed is left for `ip netns` to show; the test is over.
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// Joins two namespaces by a veth pair, both ends up. The pair dies with either namespace.
pub fn veth(a: &Netns, a_interface: &str, b: &Netns, b_interface: &str) -> Result<()> {
    run(Command::new("ip").args(["link", "add", a_interface, "netns", a.name()]).args([
        "type",
        "veth",
        "peer",
        "name",
        b_interface,
        "netns",
        b.name(),
    ]))?;
    for (ns, interface) in [(a, a_interface), (b, b_interface)] {
        // Without this, the kernel's own v6 link-local address waits for duplicate detection.
        let key = format!("net.ipv6.conf.{interface}.accept_dad=0");
        ns.run("sysctl", &["-qw", &key])?;
        ns.run("ip", &["link", "set", interface, "up"])?;
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn two_namespaces_talk_and_are_gone_afterwards() -> Result<()> {
        let (a, b) = (Netns::new("a")?, Netns::new("b")?);
        let paths = [a.path(), b.path()];
        veth(&a, "eth0", &b, "eth0")?;
        for address in ["10.9.0.1/24", "2001:db8:9::1/64"] {
            a.addr("eth0", address)?;
        }
        for address in ["10.9.0.2/24", "2001:db8:9::2/64"] {
            b.addr("eth0", address)?;
        }
        for address in ["10.9.0.1:7025", "[2001:db8:9::1]:7025"] {
            let listener = a.enter(|| TcpListener::bind(address))??;
            let mut client = b.enter(|| TcpStream::connect(address))??;
            client.write_all(b"x")?;
            let mut byte = [0];
            listener.accept()?.0.read_exact(&mut byte)?;
            assert_eq!(&byte, b"x");
        }
        assert!(b.run("ip", &["-o", "link"])?.contains("eth0"));
        drop((a, b));
        assert!(paths.iter().all(|path| !path.exists()));
        Ok(())
    }

    #[test]
    fn a_panic_inside_reaches_the_caller_and_the_namespace_goes() -> Result<()> {
        let ns = Netns::new("panic")?;
        let path = ns.path();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            ns.enter(|| panic!("inside")).ok()
        }));
        assert!(caught.is_err() && !path.exists());
        Ok(())
    }
}
