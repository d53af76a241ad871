//! Whether this machine can run the tests of the kernel and of namespaces, asked before they start.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::privilege::Privilege;
use crate::workspace;

/// Exists exactly where the kernel was built with CONFIG_BPF_SYSCALL.
const BPF_SYSCTL: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// Names and numbers as in linux/capability.h.
const NEEDED: [(&str, u32); 3] = [("NET_ADMIN", 12), ("SYS_ADMIN", 21), ("BPF", 39)];

/// Fails with one sentence when root, BPF or namespaces are not to be had.
pub(super) fn require(privilege: Privilege) -> Result<()> {
    let mut status = privilege.command("cat", &[], "loading an XDP program")?;
    status.arg("/proc/self/status");
    let status = workspace::output_of(&mut status)
        .context("cannot become root: try `sudo true`, then run this again")?;
    let missing = missing_capabilities(&status);
    if !missing.is_empty() {
        bail!(
            "root lacks {} here, as in a container: run this on the machine itself or in a \
             virtual machine, or give the container these capabilities",
            missing.join(", ")
        );
    }
    if !Path::new(BPF_SYSCTL).exists() {
        bail!("this kernel has no BPF (CONFIG_BPF_SYSCALL): run this on an ordinary Linux kernel");
    }
    let mut namespaces = privilege.command("unshare", &[], "a network namespace")?;
    namespaces.args(["--net", "--mount", "true"]).stdin(Stdio::null());
    if workspace::output_of(&mut namespaces).is_none() {
        bail!(
            "`unshare --net --mount` is refused: network namespaces are needed \
             (CONFIG_NET_NS, and no seccomp filter that forbids them)"
        );
    }
    Ok(())
}

/// Which of [`NEEDED`] the `CapEff:` line of a proc_pid_status(5) text lacks.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED
        .into_iter()
        .filter(|(_, number)| effective & (1 << number) == 0)
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_root_has_all_a_container_lacks_some() {
        let all: Vec<&str> = Vec::new();
        assert_eq!(missing_capabilities("CapEff:\t000001ffffffffff\n"), all);
        let container = missing_capabilities("CapInh:\t0\nCapEff:\t00000000a80425fb\n");
        assert_eq!(container, ["NET_ADMIN", "SYS_ADMIN", "BPF"]);
        assert_eq!(missing_capabilities("nothing"), ["NET_ADMIN", "SYS_ADMIN", "BPF"]);
    }

    #[test]
    fn without_root_it_says_what_to_do() {
        let error = require(Privilege::None).unwrap_err().to_string();
        assert!(error.contains("needs root"), "{error}");
    }
}
