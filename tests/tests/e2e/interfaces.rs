//! Several interfaces, and what becomes of each, as `status` and the log tell it.

use std::net::SocketAddrV4;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use postern_tests::{
    netns::veth,
    prober::Prober,
    process::until,
    world::{GATEWAY, OTHER, World},
};
use serde_json::Value;

use crate::continuity::{is_attached, nothing_stays};

const THREE: &str = r#"
[filter]
interface = ""
[[filter.attach]]
interface = "eth0"
[[filter.attach]]
interface = "eth1"
allow_generic = true
[[filter.attach]]
interface = "tun7"
"#;

fn prober(world: &World) -> Result<Prober> {
    Prober::start(&world.out, OTHER.parse()?, SocketAddrV4::new(GATEWAY.parse()?, 25))
}

/// What `status` says of an interface.
fn of(world: &World, name: &str) -> Result<Value> {
    let status = world.json(&["status"])?;
    let interfaces = status["edge"]["interfaces"].as_array().context("interfaces")?;
    let found = interfaces.iter().find(|interface| interface["name"] == name);
    found.cloned().with_context(|| format!("{name} is not in {status}"))
}

fn until_state(world: &World, name: &str, state: &str) -> Result<()> {
    until(&format!("{name} to be {state}"), || {
        Ok((of(world, name)?["state"] == state).then_some(()))
    })
}

#[test]
fn each_interface_is_guarded_told_and_attached_to_when_it_comes() -> Result<()> {
    let mut world = World::new()?;
    world.start(THREE)?;
    let (first, second) = (of(&world, "eth0")?, of(&world, "eth1")?);
    ensure!(first["mode"] == "native" && second["mode"] == "native", "{first} {second}");
    ensure!(first["program_id"] == second["program_id"], "one program: {first} {second}");
    ensure!(of(&world, "tun7")?["state"] == "missing");
    let status = world.cli_ok(&["status"])?;
    ensure!(status.contains("there is no interface tun7"), "{status}");
    ensure!(world.log().contains("tun7"), "the log does not name what is missing");

    veth(&world.gw, "tun7", &world.out, "tun7")?;
    until_state(&world, "tun7", "up")?;
    ensure!(is_attached(&world, "tun7")?);
    ensure!(!world.cli_ok(&["status"])?.contains("there is no interface"));
    world.stop()?;
    for name in ["eth0", "eth1", "tun7"] {
        ensure!(!is_attached(&world, name)?, "{name} was left attached");
    }
    nothing_stays(&world)
}

#[test]
fn a_killed_edge_and_the_next_one_answer_no_banned_source_on_any_interface() -> Result<()> {
    let mut world = World::new()?;
    world.start(THREE)?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let prober = prober(&world)?;
    prober.after(200)?;
    let edge = world.daemon_pid("edge")?;
    kill(edge, Signal::SIGKILL)?;
    prober.after(100)?;
    ensure!(is_attached(&world, "eth0")? && is_attached(&world, "eth1")?);
    until("the edge to be started again", || {
        Ok(world.daemon_pid("edge").ok().filter(|&pid| pid != edge))
    })?;
    until("the edge to answer", || Ok(world.cli_ok(&["status"]).ok()))?;
    prober.after(200)?;
    let seen = prober.finish()?;
    ensure!(seen.answered == 0, "{seen:?}:\n{}", world.log());
    ensure!(of(&world, "eth1")?["state"] == "up");
    world.stop()
}

#[test]
fn another_size_of_maps_and_fewer_interfaces_open_no_gap() -> Result<()> {
    let mut world = World::new()?;
    world.start(THREE)?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let prober = prober(&world)?;
    prober.after(100)?;
    world.cli_ok(&["edge", "stop"])?;
    world.postern.take().context("it was started")?.wait()?;
    world.start("[filter]\nmax_entries = 30000\n")?;
    prober.after(200)?;
    let seen = prober.finish()?;
    ensure!(seen.answered == 0, "{seen:?}:\n{}", world.log());
    ensure!(!is_attached(&world, "eth1")?, "nobody asked for eth1 any more");
    ensure!(world.log().contains("the filter that an earlier start left there"), "{}", world.log());
    world.stop()
}

#[test]
fn down_renamed_and_made_anew_are_told_and_healed() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    world.gw.run("ip", &["link", "set", "eth0", "down"])?;
    until_state(&world, "eth0", "down")?;
    ensure!(world.cli_ok(&["status"])?.contains("eth0 is down"));
    world.gw.run("ip", &["link", "set", "eth0", "name", "wan0"])?;
    world.gw.run("ip", &["link", "set", "wan0", "up"])?;
    until("the new name", || Ok((of(&world, "eth0")?["called"] == "wan0").then_some(())))?;
    ensure!(world.cli_ok(&["status"])?.contains("eth0 is now called wan0"));
    until("the log to tell", || {
        Ok(world.log().contains("the interface was renamed").then_some(()))
    })?;

    let prober = prober(&world)?;
    prober.after(100)?;
    ensure!(prober.finish()?.answered == 0, "renamed, and open");
    let told = || Ok::<_, anyhow::Error>(world.json(&["status"])?["edge"].clone());
    let before = told()?;
    ensure!(before["links_unheard"].is_null(), "{before}");
    world.gw.run("ip", &["link", "del", "wan0"])?;
    until("the kernel to have told of it", || {
        let more =
            told()?["health"]["links_told"].as_u64() > before["health"]["links_told"].as_u64();
        Ok(more.then_some(()))
    })?;
    until_state(&world, "eth0", "missing")?;
    veth(&world.gw, "eth0", &world.out, "eth0")?;
    until_state(&world, "eth0", "up")?;
    let health = world.json(&["status"])?["edge"]["health"].clone();
    ensure!(health["reattached"] == 1, "{health}");
    ensure!(world.log().contains("attached again"), "{}", world.log());
    world.stop()?;
    nothing_stays(&world)
}
