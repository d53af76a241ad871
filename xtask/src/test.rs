//! `cargo xtask test`: the four tiers, one closing line for each, and one for all.
//!
//! Tiers 1 and 2 run as the calling user. Tiers 3 and 4 are built as that user and run as root.
//! A tier that cannot run, ran nothing or left a test out is a failure, never a silence.

mod capability;
mod count;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::release_binaries;
use crate::privilege::Privilege;
use crate::setup::{self, Need};
use crate::workspace;
use count::Count;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this tier: 1 pure, 2 userspace, 3 kernel, 4 end to end (may be given again)
    #[arg(long = "tier", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=4))]
    tiers: Vec<u8>,
    /// Only the tests whose name contains this
    filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Pure,
    Userspace,
    Kernel,
    EndToEnd,
}

impl Tier {
    const ALL: [Self; 4] = [Self::Pure, Self::Userspace, Self::Kernel, Self::EndToEnd];

    fn name(self) -> &'static str {
        match self {
            Self::Pure => "tier 1, pure",
            Self::Userspace => "tier 2, userspace",
            Self::Kernel => "tier 3, kernel",
            Self::EndToEnd => "tier 4, end to end",
        }
    }

    fn needs_root(self) -> bool {
        matches!(self, Self::Kernel | Self::EndToEnd)
    }

    fn needs(self) -> &'static [Need] {
        match self {
            Self::Pure => &[],
            Self::Userspace | Self::Kernel => &[Need::Toolchain],
            Self::EndToEnd => &[Need::Toolchain, Need::Account, Need::Peers, Need::Exim],
        }
    }
}

/// What became of a tier.
struct Outcome {
    tier: Tier,
    count: Count,
    /// Why the tier failed, when the count alone does not say so.
    trouble: Option<String>,
    took: Duration,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let tiers = selected(&args.tiers);
    let privilege = Privilege::detect();
    if tiers.iter().any(|tier| tier.needs_root()) {
        capability::require(privilege).context("tiers 3 and 4 cannot run")?;
    }
    let mut needs: Vec<Need> = tiers.iter().flat_map(|tier| tier.needs()).copied().collect();
    needs.dedup();
    setup::ensure(&needs)?;

    let filter = args.filter.as_deref();
    let postern = workspace::release_binary("postern");
    let mut outcomes = Vec::new();
    for tier in tiers {
        println!("\n== {} ==", tier.name());
        let started = Instant::now();
        let ran = match tier {
            Tier::Pure => cargo_test(&["-prelay-common", "-prelay-core"], filter),
            Tier::Userspace => cargo_test(&["-prelay-userspace", "-pxtask"], filter)
                .and_then(|ran| Ok(both(ran, cargo_test(&["-ppostern-tests", "--lib"], filter)?))),
            Tier::Kernel => as_root(privilege, "kernel", &postern, filter),
            Tier::EndToEnd => release_binaries(&[("relay-userspace", "postern")])
                .and_then(|()| as_root(privilege, "e2e", &postern, filter)),
        };
        let (count, trouble) =
            ran.unwrap_or_else(|error| (Count::default(), Some(format!("{error:#}"))));
        outcomes.push(Outcome { tier, count, trouble, took: started.elapsed() });
    }
    summarise(&mut outcomes, args.filter.is_some())
}

fn selected(numbers: &[u8]) -> Vec<Tier> {
    Tier::ALL
        .into_iter()
        .zip(1u8..)
        .filter(|(_, number)| numbers.is_empty() || numbers.contains(number))
        .map(|(tier, _)| tier)
        .collect()
}

/// What ran, and what is wrong with it beyond the tests that failed.
type Ran = (Count, Option<String>);

fn both(one: Ran, other: Ran) -> Ran {
    (one.0 + other.0, one.1.or(other.1))
}

/// `cargo test` as the calling user; `which` chooses packages and targets.
fn cargo_test(which: &[&str], filter: Option<&str>) -> Result<Ran> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-fail-fast"]).args(which).args(filter);
    counted(&mut cargo)
}

/// Builds a test target of tests/ as the calling user, and runs it as root.
fn as_root(
    privilege: Privilege,
    target: &str,
    postern: &Path,
    filter: Option<&str>,
) -> Result<Ran> {
    let binary = test_binary(target)?;
    let mailers = setup::mailers_folder();
    let env = [("POSTERN_BIN", postern), ("POSTERN_PEERS", mailers.as_path())];
    let mut command = privilege.command(binary, &env, "the test")?;
    command.current_dir(workspace::root().join("tests"));
    command.args(filter);
    counted(&mut command)
}

/// The executable of a test target of the package postern-tests, built now.
fn test_binary(target: &str) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-run", "--package", "postern-tests", "--test", target]);
    cargo.arg("--message-format=json-render-diagnostics");
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the test target `{target}` does not build");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| executable_in(line, target))
        .next_back()
        .with_context(|| format!("cargo named no executable for the test target `{target}`"))
}

/// One line of cargo's JSON messages: the executable of the test target, if this line is its.
fn executable_in(message: &str, target: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_target = message["target"]["name"] == target && message["target"]["kind"][0] == "test";
    if !is_target {
        return None;
    }
    message["executable"].as_str().map(PathBuf::from)
}

/// Runs a test command, passes its output on line by line, and adds up its result lines.
fn counted(command: &mut Command) -> Result<Ran> {
    let name = workspace::display(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{name}`"))?;
    let output = child.stdout.take().context("the child has no standard output")?;
    let mut count = Count::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        count.add_line(&line);
    }
    let status = child.wait()?;
    // A test that failed makes its count non-zero; anything else needs words of its own.
    let trouble = (!status.success() && count.failed == 0).then(|| format!("`{name}`: {status}"));
    Ok((count, trouble))
}

fn summarise(outcomes: &mut [Outcome], filtered: bool) -> Result<()> {
    let total = outcomes.iter().fold(Count::default(), |sum, outcome| sum + outcome.count);
    for outcome in &mut *outcomes {
        if outcome.trouble.is_none() {
            outcome.trouble = silent_trouble(outcome.count, filtered);
        }
    }
    println!();
    for Outcome { tier, count, trouble, took } in &*outcomes {
        let trouble = trouble.as_ref().map_or(String::new(), |text| format!("  FAILED: {text}"));
        println!("{:<20}{count:<28}{:>7.1} s{trouble}", tier.name(), took.as_secs_f64());
    }
    println!("\n{total}");
    if filtered && total.passed + total.failed == 0 {
        bail!("no test has that in its name");
    }
    let failed =
        outcomes.iter().filter(|one| one.trouble.is_some() || one.count.failed > 0).count();
    if failed > 0 {
        bail!("{failed} of {} tiers failed", outcomes.len());
    }
    Ok(())
}

/// What the count hides: a tier without tests, and tests that were left out.
fn silent_trouble(count: Count, filtered: bool) -> Option<String> {
    if count.ignored > 0 {
        return Some(format!("{} ignored: a test that cannot fail is not a test", count.ignored));
    }
    (!filtered && count.passed + count.failed == 0).then(|| "ran no test".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(tier: Tier, passed: u64, failed: u64, ignored: u64) -> Outcome {
        let count = Count { passed, failed, ignored };
        Outcome { tier, count, trouble: None, took: Duration::ZERO }
    }

    #[test]
    fn no_tier_named_means_all() {
        assert_eq!(selected(&[]), Tier::ALL);
        assert_eq!(selected(&[4, 1, 4]), [Tier::Pure, Tier::EndToEnd]);
    }

    #[test]
    fn finds_the_executable_of_its_own_target_only() {
        let line = |name: &str, kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}","kind":["{kind}"]}},"executable":"/t/{name}-1"}}"#
            )
        };
        let of_kernel = |line: &str| executable_in(line, "kernel");
        assert_eq!(of_kernel(&line("kernel", "test")), Some("/t/kernel-1".into()));
        assert_eq!(of_kernel(&line("e2e", "test")), None);
        assert_eq!(of_kernel(&line("kernel", "lib")), None);
        assert_eq!(of_kernel("not json"), None);
    }

    #[test]
    fn a_failed_test_an_ignored_one_and_an_empty_tier_all_fail() {
        let verdict = |one: Outcome| summarise(&mut [outcome(Tier::Pure, 3, 0, 0), one], false);
        assert!(verdict(outcome(Tier::Kernel, 1, 0, 0)).is_ok());
        assert!(verdict(outcome(Tier::Kernel, 1, 1, 0)).is_err());
        assert!(verdict(outcome(Tier::Kernel, 1, 0, 1)).is_err());
        assert!(verdict(outcome(Tier::Kernel, 0, 0, 0)).is_err());
    }

    #[test]
    fn a_filter_may_leave_a_tier_empty_but_not_all_of_them() {
        let tiers = |passed| [outcome(Tier::Pure, passed, 0, 0), outcome(Tier::Kernel, 0, 0, 0)];
        assert!(summarise(&mut tiers(1), true).is_ok());
        assert!(summarise(&mut tiers(0), true).is_err());
    }

    #[test]
    fn a_crash_is_a_failure_even_when_no_test_says_so() {
        let mut crash = Command::new("sh");
        crash.args(["-c", "echo 'test result: ok. 2 passed; 0 failed; 0 ignored;'; exit 101"]);
        let (count, trouble) = counted(&mut crash).unwrap();
        assert_eq!(count.passed, 2);
        assert!(trouble.is_some());
    }
}
