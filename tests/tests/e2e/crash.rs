//! 250 means: on disk. The relay is killed in the middle of a load, and nothing is lost.

use std::{collections::HashSet, process::Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use postern_tests::{
    process::{Process, until},
    recorder::{Recorded, Recorder},
    tap::Tap,
    world::World,
};

const MESSAGES: usize = 1000;

/// The queue id in the Received line that Postern put on top.
fn queue_id(message: &Recorded) -> Option<String> {
    let (head, _) = message.split();
    let unfolded = head.replace("\r\n\t", " ").replace("\r\n ", " ");
    let received = unfolded.lines().next()?.strip_prefix("Received: ")?.to_owned();
    let id = received.split(" id ").nth(1)?;
    Some(id.split([' ', ';']).next()?.to_owned())
}

fn smtp_source(world: &World) -> Result<Process> {
    let mut command = world.out.command("smtp-source");
    command.args(["-s", "10", "-m", &MESSAGES.to_string(), "-l", "4096"]);
    command.args(["-f", "load@foreign.test", "-t", "user@inside.test", "127.0.0.1:2525"]);
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

#[test]
fn a_relay_killed_under_load_delivers_every_message_it_acknowledged() -> Result<()> {
    let mut world = World::new()?;
    let inside = Recorder::start(&world.inside, "10.0.0.25:25".parse()?)?;
    world.start("[limits]\nconnections_per_source = 100\n[queue]\nretry = [\"1s\"]\n")?;
    let tap = Tap::start(&world.out, "127.0.0.1:2525".parse()?, "203.0.113.1:25".parse()?)?;
    let program = xdp_program(&world)?;

    // Killed, started again by `postern run`, and again under load: three crashes in all.
    for round in 1..=3 {
        let before = tap.acknowledged().len();
        let mut load = smtp_source(&world)?;
        let relay = world.daemon_pid("relay")?;
        until("a third of the load", || {
            Ok((tap.acknowledged().len() >= before + MESSAGES / 3).then_some(()))
        })?;
        kill(relay, Signal::SIGKILL)?;
        load.wait()?;
        ensure!(xdp_program(&world)? == program, "the filter was touched in round {round}");
        until("the relay to be started again", || {
            let pid = world.daemon_pid("relay").ok().filter(|&pid| pid != relay);
            Ok(pid.and_then(|_| world.cli_ok(&["queue", "list"]).ok()))
        })?;
    }
    let mut load = smtp_source(&world)?;
    ensure!(load.wait()?.success(), "the load after the crashes failed");

    let acknowledged = tap.acknowledged();
    ensure!(acknowledged.len() >= 2 * MESSAGES, "only {} acknowledged", acknowledged.len());
    until("every acknowledged message to arrive", || {
        let arrived: HashSet<String> = inside.messages().iter().filter_map(queue_id).collect();
        Ok(acknowledged.is_subset(&arrived).then_some(()))
    })
    .with_context(|| {
        let arrived: HashSet<String> = inside.messages().iter().filter_map(queue_id).collect();
        let lost: Vec<_> = acknowledged.difference(&arrived).take(5).collect();
        format!(
            "{} acknowledged, {} arrived, lost e.g. {lost:?}",
            acknowledged.len(),
            arrived.len()
        )
    })?;
    world.stop()
}

/// The id of the XDP program on the gateway's outer interface.
fn xdp_program(world: &World) -> Result<String> {
    let link = world.gw.run("ip", &["-d", "link", "show", "eth0"])?;
    let id = link.split("prog/xdp id ").nth(1).context("no XDP program is attached")?;
    Ok(id.split_whitespace().next().unwrap_or_default().to_owned())
}
