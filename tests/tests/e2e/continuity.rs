//! What becomes of the filter when a daemon, the interface or the configuration goes away under it.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use postern_tests::{
    dialogue::connect,
    netns::veth,
    process::{Process, until},
    world::{GATEWAY, OTHER, World},
};

pub(crate) fn is_attached(world: &World, interface: &str) -> Result<bool> {
    Ok(world.gw.run("ip", &["-d", "link", "show", interface])?.contains("prog/xdp"))
}

pub(crate) fn nothing_stays(world: &World) -> Result<()> {
    ensure!(!is_attached(world, "eth0")?, "left attached:\n{}", world.log());
    ensure!(!world.pins.exists(), "pins were left");
    Ok(())
}

/// Kills `postern run` and both daemons at once, as the kernel does when memory is short.
pub(crate) fn kill_all(world: &mut World) -> Result<()> {
    let daemons = [world.daemon_pid("edge")?, world.daemon_pid("relay")?];
    let mut run = world.postern.take().expect("it was started");
    run.signal(Signal::SIGKILL)?;
    for pid in daemons {
        // The edge ends with `postern run` and may be gone by now.
        let _gone = kill(pid, Signal::SIGKILL);
    }
    run.wait()?;
    until("the daemons to be gone", || {
        let gone =
            daemons.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists());
        Ok(gone.then_some(()))
    })
}

#[test]
fn a_signal_during_the_start_leaves_nothing_attached() -> Result<()> {
    let world = World::new()?;
    let config = world.write_config("")?;
    let mut command = world.postern(&["run", "--config"]);
    let mut run = Process::start(command.arg(config))?;
    until("the filter", || Ok(is_attached(&world, "eth0")?.then_some(())))?;
    run.signal(Signal::SIGTERM)?;
    ensure!(run.wait()?.success());
    nothing_stays(&world)
}

#[test]
fn ending_while_the_edge_is_dead_leaves_nothing_attached() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    kill(world.daemon_pid("edge")?, Signal::SIGKILL)?;
    world.stop()?;
    nothing_stays(&world)
}

#[test]
fn a_start_elsewhere_takes_the_filter_that_was_left_behind_off() -> Result<()> {
    let mut world = World::new()?;
    for elsewhere in [&["--interface", "eth1"][..], &["--filter", "userspace"]] {
        world.start("")?;
        world.cli_ok(&["deny", "add", OTHER])?;
        kill_all(&mut world)?;
        ensure!(is_attached(&world, "eth0")?, "a kill must not take it off");
        world.start_with("", elsewhere)?;
        ensure!(!is_attached(&world, "eth0")?, "it would drop for ever:\n{}", world.log());
        world.cli_ok(&["deny", "del", OTHER])?;
        connect(&world.out, OTHER, &format!("{GATEWAY}:25"), Duration::from_secs(5))?;
        world.stop()?;
        ensure!(!is_attached(&world, "eth1")?);
    }
    Ok(())
}

#[test]
fn an_interface_that_is_made_anew_is_filtered_again() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    world.gw.run("ip", &["link", "del", "eth0"])?;
    veth(&world.gw, "eth0", &world.out, "eth0")?;
    until("the filter on the new interface", || {
        Ok((is_attached(&world, "eth0")? && world.cli_ok(&["status"])?.contains("native"))
            .then_some(()))
    })?;
    world.gw.addr("eth0", "203.0.113.1/24")?;
    world.out.addr("eth0", &format!("{OTHER}/24"))?;
    let refused =
        connect(&world.out, OTHER, &format!("{GATEWAY}:25"), Duration::from_millis(1500)).is_err();
    ensure!(refused, "the denied source got through");
    world.stop()?;
    nothing_stays(&world)
}

#[test]
fn lists_that_cannot_be_read_neither_attach_a_filter_nor_take_one_off() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let database = world.path("state").join("edge").join("lists.db");
    for name in ["lists.db-wal", "lists.db-shm"] {
        let _absent = std::fs::remove_file(database.with_file_name(name));
    }
    std::fs::write(&database, [b'x'; 4096])?;
    kill(world.daemon_pid("edge")?, Signal::SIGKILL)?;
    until("the edge to fail", || Ok(world.log().contains("opening the lists in").then_some(())))?;
    ensure!(is_attached(&world, "eth0")?, "a start that failed opened the gate");
    let _status = world.stop();
    nothing_stays(&world)?;
    ensure!(world.start("").is_err());
    nothing_stays(&world)
}
