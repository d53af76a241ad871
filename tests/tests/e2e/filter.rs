//! What an administrator denies is dropped in the kernel, and nothing else is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern_tests::{
    capture::Capture,
    dialogue::{Dialogue, connect},
    process::{output, until},
    world::{GATEWAY, GATEWAY_V6, HONEST, HONEST_V6, OTHER, OTHER_V6, World},
};

/// A SYN that is not answered is sent again after one second; this shows at least one repetition.
const UNANSWERED: Duration = Duration::from_millis(1500);

fn mx(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:25") } else { format!("{address}:25") }
}

fn is_dropped(world: &World, from: &str, to: &str) -> Result<bool> {
    match connect(&world.out, from, to, UNANSWERED) {
        Ok(_) => Ok(false),
        Err(error) => {
            let timed_out = error.chain().any(|cause| {
                cause
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|error| matches!(error.kind(), std::io::ErrorKind::TimedOut))
            });
            ensure!(timed_out, "refused or unreachable, which is not dropped: {error:#}");
            Ok(true)
        }
    }
}

/// Denied by CLI: SYNs come, no SYN-ACK goes; another source passes; lifted, it is let in at once.
fn denied_and_lifted(denied: &str, honest: &str, gateway: &str) -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    let mx = mx(gateway);
    Dialogue::open(&world.out, denied, &mx)?;
    world.cli_ok(&["deny", "add", denied, "--reason", "test"])?;

    let capture = Capture::start(&world.out, "eth0", world.path("denied.pcap"))?;
    ensure!(is_dropped(&world, denied, &mx)?, "the denied source got through");
    let greeting = Dialogue::open(&world.out, honest, &mx)?.greeting;
    ensure!(greeting.starts_with("220 "), "{greeting}");
    capture.until_syn_ack(honest, 25).context("the honest source")?;
    let packets = capture.finish()?;
    ensure!(packets.syns(denied, 25)? > 0, "the denied source sent no SYN");
    ensure!(packets.syn_acks(denied, 25)? == 0, "the denied source got a SYN-ACK");

    world.cli_ok(&["deny", "del", denied])?;
    Dialogue::open(&world.out, denied, &mx)?;
    world.stop()
}

#[test]
fn a_denied_v4_source_gets_no_syn_ack_and_is_let_in_once_lifted() -> Result<()> {
    denied_and_lifted(OTHER, HONEST, GATEWAY)
}

#[test]
fn a_denied_v6_source_gets_no_syn_ack_and_is_let_in_once_lifted() -> Result<()> {
    denied_and_lifted(OTHER_V6, HONEST_V6, GATEWAY_V6)
}

#[test]
fn a_prefix_denies_its_members_and_allow_beats_deny() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    let mx = mx(GATEWAY);
    world.cli_ok(&["deny", "add", "203.0.113.64/26"])?;
    ensure!(is_dropped(&world, OTHER, &mx)?, "a member of the denied prefix got through");
    ensure!(!is_dropped(&world, HONEST, &mx)?, "a source outside the prefix was dropped");
    world.cli_ok(&["allow", "add", OTHER])?;
    ensure!(!is_dropped(&world, OTHER, &mx)?, "allow did not beat deny");
    world.cli_ok(&["allow", "del", OTHER])?;
    ensure!(is_dropped(&world, OTHER, &mx)?, "the deny was gone with the allow");
    world.stop()
}

#[test]
fn a_ban_ends_in_the_kernel_while_the_daemon_is_stopped() -> Result<()> {
    use nix::sys::signal::Signal;
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER, "--ttl", "4s", "--scope", "all"])?;
    let edge = world.daemon_pid("edge")?;
    // Stopped, not killed: nobody starts it again, and nobody can sweep.
    nix::sys::signal::kill(edge, Signal::SIGSTOP)?;
    let ping = || -> Result<bool> {
        let answer = output(world.out.command("ping").args(["-c1", "-W1", "-I", OTHER, GATEWAY]))?;
        Ok(answer.status.success())
    };
    ensure!(!ping()?, "the banned source got an answer");
    until("the ban to end by itself", || Ok(ping()?.then_some(())))?;
    nix::sys::signal::kill(edge, Signal::SIGCONT)?;
    world.stop()
}

#[test]
fn scope_mx_leaves_icmp_ssh_and_submission_alone() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    let ssh = world.gw.enter(|| std::net::TcpListener::bind((GATEWAY, 22)))??;
    world.cli_ok(&["deny", "add", OTHER, OTHER_V6, "--scope", "mx"])?;
    ensure!(is_dropped(&world, OTHER, &mx(GATEWAY))?, "port 25 is open");
    ensure!(is_dropped(&world, OTHER_V6, &mx(GATEWAY_V6))?, "port 25 is open over v6");
    connect(&world.out, OTHER, &format!("{GATEWAY}:22"), UNANSWERED)?;
    connect(&world.out, OTHER, &format!("{GATEWAY}:587"), UNANSWERED)?;
    for (from, to) in [(OTHER, GATEWAY), (OTHER_V6, GATEWAY_V6)] {
        output(world.out.command("ping").args(["-c1", "-W2", "-I", from, to]))?.success()?;
    }
    drop(ssh);
    world.stop()
}

#[test]
fn lists_survive_a_restart_and_a_crash_of_the_edge() -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let edge = world.daemon_pid("edge")?;
    kill(edge, Signal::SIGKILL)?;
    ensure!(is_dropped(&world, OTHER, &mx(GATEWAY))?, "the filter went with the edge");
    until("the edge to be started again", || {
        Ok(world.daemon_pid("edge").ok().filter(|&pid| pid != edge))
    })?;
    until("the edge to answer", || Ok(world.cli_ok(&["status"]).ok()))?;
    ensure!(is_dropped(&world, OTHER, &mx(GATEWAY))?, "the deny was lost");
    world.stop()?;
    ensure!(
        !world.gw.run("ip", &["-d", "link", "show", "eth0"])?.contains("prog/xdp"),
        "the program is still attached after the end"
    );
    world.start("")?;
    ensure!(is_dropped(&world, OTHER, &mx(GATEWAY))?, "the deny was not restored");
    let hits = world.json(&["stats"])?.to_string();
    ensure!(hits.contains("dropped"), "{hits}");
    world.stop()
}

#[test]
fn dropped_packets_are_logged_when_asked_for() -> Result<()> {
    let mut world = World::new()?;
    world.start("[filter]\nlog_drops = true\n")?;
    world.cli_ok(&["deny", "add", OTHER, OTHER_V6])?;
    ensure!(is_dropped(&world, OTHER, &mx(GATEWAY))?, "not dropped");
    ensure!(is_dropped(&world, OTHER_V6, &mx(GATEWAY_V6))?, "not dropped over v6");
    for source in [OTHER, OTHER_V6] {
        let line = format!("drop {source} class 1");
        until(&line, || Ok(world.log().contains(&line).then_some(())))?;
    }
    world.stop()
}
