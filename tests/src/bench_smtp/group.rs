//! A control group for each server, so that CPU time counts for whatever it starts: children that
//! were reaped, and those that were left to init.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

/// How often a group is looked at, and for how long its server has to rest to count as idle.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_millis(200);
/// What a server may use of [`REST`] and still be idle.
const IDLE_USE: Duration = Duration::from_millis(4);
/// To take a group away.
const ATTEMPTS: usize = 50;
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// All processes of one server.
#[derive(Debug)]
pub(super) struct Group {
    folder: PathBuf,
}

impl Group {
    /// An empty group.
    ///
    /// # Errors
    /// No cgroup2 is mounted, in a sentence.
    pub(super) fn new(name: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let at = fields.next()?;
            (fields.next()? == "cgroup2").then_some(at)
        });
        let mount = mount.context(
            "CPU time is counted by cgroup2, which is not mounted; as root: \
             mkdir -p /sys/fs/cgroup/unified; mount -t cgroup2 none /sys/fs/cgroup/unified",
        )?;
        // A name is used again, by the next measurement of the same server.
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let folder = PathBuf::from(mount).join(format!("postern-bench-{process}-{number}-{name}"));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Takes a process in, and what it has started.
    ///
    /// # Errors
    /// The process is gone.
    pub(super) fn take(&self, pid: Pid) -> Result<()> {
        let file = self.folder.join("cgroup.procs");
        // A second time for what was started between being listed and being taken.
        for _ in 0..2 {
            fs::write(&file, pid.to_string()).with_context(|| format!("moving process {pid}"))?;
            for child in descendants(pid) {
                // Some children end of themselves.
                let _gone_meanwhile = fs::write(&file, child.to_string());
            }
        }
        Ok(())
    }

    /// CPU time used since the group was made.
    ///
    /// # Errors
    /// The group is gone.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let text = fs::read_to_string(self.folder.join("cpu.stat"))?;
        let used = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(Duration::from_micros(used.context("cpu.stat has no usage_usec")?.parse()?))
    }

    /// Waits until the server does nothing any more.
    ///
    /// # Errors
    /// It goes on and on.
    pub(super) fn idle(&self) -> Result<()> {
        let started = Instant::now();
        let (mut since, mut at) = (started, self.cpu()?);
        while since.elapsed() < REST {
            std::thread::sleep(LOOK_EVERY);
            let now = self.cpu()?;
            if now.saturating_sub(at) > IDLE_USE {
                (since, at) = (Instant::now(), now);
            }
            if started.elapsed() > IDLE_WITHIN {
                bail!("{} does not come to rest", self.folder.display());
            }
        }
        Ok(())
    }

    /// Memory of all its processes in KiB, each page counted once for those that share it.
    ///
    /// # Errors
    /// The group is gone.
    pub(super) fn pss_kib(&self) -> Result<u64> {
        let processes = fs::read_to_string(self.folder.join("cgroup.procs"))?;
        Ok(processes.lines().filter_map(pss_kib).sum())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What is still in it goes back to where all others are, and is ended by who started it. Some of
        // them start others meanwhile, or are not reaped yet.
        for _ in 0..ATTEMPTS {
            let left = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
            for pid in left.lines() {
                let _gone_meanwhile = fs::write(self.folder.join("../cgroup.procs"), pid);
            }
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// `None` for a process that has gone.
fn pss_kib(pid: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn descendants(pid: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for thread in threads.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            let child = Pid::from_raw(child);
            found.push(child);
            found.extend(descendants(child));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::Process;

    #[test]
    fn what_a_child_used_counts_after_it_has_ended() -> Result<()> {
        let group = Group::new("test")?;
        let mut child = Command::new("sh");
        child.args([
            "-c",
            "read go; sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'; sleep 60",
        ]);
        let (reader, mut writer) = std::io::pipe()?;
        let child = Process::start_with_input(child.stdin(reader))?;
        group.take(child.pid())?;
        let before = group.cpu()?;
        std::io::Write::write_all(&mut writer, b"\n")?;
        crate::process::until("the child to be done", || {
            Ok((group.cpu()? - before > Duration::from_millis(20)).then_some(()))
        })?;
        group.idle()?;
        assert!(group.pss_kib()? > 0);
        let folder = group.folder.clone();
        drop(group);
        assert!(!folder.exists(), "it is gone, although the child is not");
        Ok(())
    }
}
