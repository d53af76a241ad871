//! `postern edge stop`: what it leaves, what it takes off, and what it says.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use postern_tests::{
    dialogue::connect,
    process::{Output, Process, output, until},
    world::{GATEWAY, OTHER, World},
};
use relay_common::layout::LAYOUT_VERSION;

use crate::continuity::{is_attached, kill_all, nothing_stays};

fn gets_in(world: &World) -> bool {
    connect(&world.out, OTHER, &format!("{GATEWAY}:25"), Duration::from_millis(1500)).is_ok()
}

/// As an administrator does who names the configuration.
fn stop_by_config(world: &World, words: &[&str]) -> Result<Output> {
    let config = world.write_config("")?;
    output(world.postern(&["--config"]).arg(config).args(["edge", "stop"]).args(words))
}

fn run_has_ended(world: &mut World) -> Result<()> {
    let status = world.postern.take().context("it was started")?.wait()?;
    ensure!(status.success(), "postern run ended with {status}:\n{}", world.log());
    Ok(())
}

#[test]
fn a_plain_stop_ends_the_run_and_leaves_the_filter_which_ends_bans_by_itself() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", "192.0.2.0/24"])?;
    world.cli_ok(&["deny", "add", OTHER, "--ttl", "8s", "--scope", "all"])?;
    let said = world.cli_ok(&["edge", "stop"])?;
    for part in ["`postern run` ends with it", "stays on eth0", "2 entries of the deny list"] {
        ensure!(said.contains(part), "does not say {part:?}: {said}");
    }
    run_has_ended(&mut world)?;
    ensure!(is_attached(&world, "eth0")?, "the filter went:\n{}", world.log());
    let ping = || -> Result<bool> {
        let answer = output(world.out.command("ping").args(["-c1", "-W1", "-I", OTHER, GATEWAY]))?;
        Ok(answer.status.success())
    };
    ensure!(!ping()?, "the banned source got an answer");
    until("the ban to end by itself", || Ok(ping()?.then_some(())))?;

    world.start("")?;
    ensure!(world.cli_ok(&["deny", "list"])?.contains("192.0.2.0/24"));
    world.stop()?;
    nothing_stays(&world)
}

/// A mistake in the configuration, found at a restart, opens no gate.
#[test]
fn a_start_that_fails_leaves_the_filter_that_stood() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    world.cli_ok(&["edge", "stop"])?;
    run_has_ended(&mut world)?;
    let missing = "[tls]\ncertificate = \"/nowhere/cert.pem\"\nkey = \"/nowhere/key.pem\"\n";
    // The relay does not come up, beside an edge that has adopted the filter; or the edge does not.
    for (config, arguments, says) in
        [(missing, &[][..], "/nowhere/cert.pem"), ("", &["--interface", "wan7"][..], "wan7")]
    {
        let file = world.write_config(config)?;
        let mut run = world.postern(&["run", "--config"]);
        let outcome = output(run.arg(file).args(arguments))?;
        let both = format!("{}{}", outcome.stdout, outcome.stderr);
        ensure!(!outcome.status.success() && both.contains(says), "{both}");
        ensure!(both.contains("stays in force"), "{both}");
        ensure!(is_attached(&world, "eth0")? && !gets_in(&world), "the gate is open:\n{both}");
    }
    world.start("")?;
    ensure!(!gets_in(&world), "the gate is open");
    world.stop()?;
    nothing_stays(&world)
}

#[test]
fn a_stop_that_detaches_leaves_nothing_and_the_next_one_finds_nothing() -> Result<()> {
    let mut world = World::new()?;
    world.start_with("", &["--keep-filter"])?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let said = world.json(&["edge", "stop", "--detach"])?;
    ensure!(said["detached"] == true && said["interfaces"][0]["name"] == "eth0", "{said}");
    nothing_stays(&world)?;
    run_has_ended(&mut world)?;
    nothing_stays(&world)?;

    let nobody = stop_by_config(&world, &[])?;
    ensure!(nobody.status.code() == Some(4) && nobody.stderr.contains("not running"), "{nobody:?}");
    let nothing = stop_by_config(&world, &["--detach"])?;
    ensure!(nothing.status.code() == Some(3), "{nothing:?}");
    // Without a configuration nobody knows where this edge would have left what.
    let unknown = world.cli(&["edge", "stop", "--detach"])?;
    ensure!(unknown.status.code() == Some(4) && unknown.stderr.contains("--config"), "{unknown:?}");
    Ok(())
}

#[test]
fn what_a_killed_edge_left_is_taken_off_without_one() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    kill_all(&mut world)?;
    let plain = stop_by_config(&world, &[])?;
    ensure!(plain.status.code() == Some(4) && is_attached(&world, "eth0")?, "{plain:?}");
    let off = stop_by_config(&world, &["--detach"])?.success()?;
    ensure!(off.stdout.contains("taken off"), "{off:?}");
    nothing_stays(&world)
}

/// An edge that fails at each start: `postern run` waits ever longer between two.
fn cannot_start_again(world: &World) -> Result<()> {
    let database = world.path("state").join("edge").join("lists.db");
    for name in ["lists.db-wal", "lists.db-shm"] {
        let _absent = fs::remove_file(database.with_file_name(name));
    }
    fs::write(&database, [b'x'; 4096])?;
    kill(world.daemon_pid("edge")?, Signal::SIGKILL)?;
    until("the edge to fail", || Ok(world.log().contains("opening the lists in").then_some(())))
}

#[test]
fn a_stop_while_the_edge_waits_to_be_started_again_ends_the_run_and_no_edge_comes() -> Result<()> {
    for (words, says, stays) in [
        (&["edge", "stop", "--detach"][..], "the filter that the edge left was taken off", false),
        (&["edge", "stop"], "the filter that the edge left stays", true),
    ] {
        let mut world = World::new()?;
        world.start("")?;
        world.cli_ok(&["deny", "add", OTHER])?;
        cannot_start_again(&world)?;
        ensure!(is_attached(&world, "eth0")?, "a crash must not take it off");
        let relay = world.daemon_pid("relay")?;
        let said = world.cli_ok(words)?;
        ensure!(said.contains("`postern run` has ended") && said.contains(says), "{said}");
        ensure!(!std::path::Path::new(&format!("/proc/{relay}")).exists(), "the relay goes on");
        run_has_ended(&mut world)?;
        ensure!(is_attached(&world, "eth0")? == stays, "{words:?}: {said}");
        if stays {
            ensure!(!gets_in(&world), "the list went with the run");
            stop_by_config(&world, &["--detach"])?.success()?;
        }
        nothing_stays(&world)?;
    }
    Ok(())
}

#[test]
fn an_edge_alone_is_stopped_and_started_by_hand() -> Result<()> {
    let mut world = World::new()?;
    let config = world.write_config("")?;
    let start = |world: &World| -> Result<Process> {
        let mut command = world.postern(&["edge", "--config"]);
        let edge = Process::start(command.arg(&config).arg("--detach-on-exit"))?;
        until("the edge to answer", || Ok(world.cli(&["deny", "list"])?.success().ok()))?;
        Ok(edge)
    };
    let mut edge = start(&world)?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let said = world.cli_ok(&["edge", "stop"])?;
    ensure!(!said.contains("postern run"), "{said}");
    ensure!(edge.wait()?.success() && is_attached(&world, "eth0")?, "a stop leaves the filter");

    let mut edge = start(&world)?;
    world.cli_ok(&["edge", "stop", "--detach"])?;
    ensure!(edge.wait()?.success());
    nothing_stays(&world)?;
    world.start("")?;
    ensure!(!gets_in(&world), "the list was lost");
    world.stop()
}

#[test]
fn a_start_that_was_refused_the_pins_of_another_never_takes_them_off_later() -> Result<()> {
    let mut world = World::new()?;
    world.start_with("", &["--keep-filter"])?;
    let config = fs::read_to_string(world.path("postern.toml"))?;
    let elsewhere = config.replace("/state\"", "/state2\"").replace("/run\"", "/run2\"");
    ensure!(elsewhere.contains("/state2\"") && elsewhere.contains("/run2\""), "{elsewhere}");
    let file = world.path("other.toml");
    let second = |pins: &str, words: &[&str]| -> Result<Output> {
        fs::write(&file, elsewhere.replace("/postern-test-", pins))?;
        output(world.postern(&["--config"]).arg(&file).arg("edge").args(words))
    };
    let refused = second("/postern-test-", &[])?;
    ensure!(refused.stderr.contains("another process owns the kernel filter"), "{refused:?}");
    let nothing = second("/postern-test-other-", &["stop", "--detach"])?;
    ensure!(nothing.stdout.contains("it left no filter"), "{nothing:?}");
    ensure!(is_attached(&world, "eth0")?, "the filter went:\n{}", world.log());
    world.cli_ok(&["edge", "stop", "--detach"])?;
    run_has_ended(&mut world)?;
    nothing_stays(&world)
}

#[test]
fn a_filter_that_is_left_is_pinned_before_its_edge_ends() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let pins = world.pins.join(format!("v{LAYOUT_VERSION}"));
    fs::remove_dir_all(&pins)?;
    world.cli_ok(&["edge", "stop"])?;
    run_has_ended(&mut world)?;
    ensure!(is_attached(&world, "eth0")? && !gets_in(&world), "the gate is open:\n{}", world.log());

    // Lists that cannot be read end no filter, for all that this start would do without it.
    let lists = world.path("state/edge/lists.db");
    let (kept, text) = (fs::read(&lists)?, "no database at all, but some other file");
    fs::write(&lists, text)?;
    let mut run = world.postern(&["run", "--filter", "userspace", "--config"]);
    let outcome = output(run.arg(world.write_config("")?))?;
    let both = format!("{}{}", outcome.stdout, outcome.stderr);
    ensure!(!outcome.status.success() && both.contains("opening the lists in"), "{both}");
    ensure!(is_attached(&world, "eth0")? && !gets_in(&world), "the gate is open:\n{both}");
    fs::write(&lists, kept)?;

    // What cannot be pinned cannot be left.
    world.start("")?;
    let in_the_way = pins.join("link_eth0");
    fs::remove_file(&in_the_way)?;
    fs::create_dir(&in_the_way)?;
    let refused = world.cli(&["edge", "stop"])?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(refused.stderr.contains("would not stay"), "{refused:?}");
    ensure!(!gets_in(&world));
    fs::remove_dir(&in_the_way)?;
    world.stop()?;
    nothing_stays(&world)
}
