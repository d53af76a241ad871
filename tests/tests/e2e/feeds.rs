//! Feeds in the kernel: enforced, replaced without a gap, refused, and there after a kill.

use std::{
    fmt::Write as _,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use postern_tests::{
    dialogue::connect,
    process::until,
    world::{GATEWAY, HONEST, OTHER, World},
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::os::fd::AsFd;

const FEED: &str = "[[feed]]\nname = \"bad\"\nscope = \"smtp\"\nsource = ";
/// Between two SYNs of a prober.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// Sockets of a prober that are looked after at once.
const PROBES_MAX: usize = 400;

fn config(world: &World) -> String {
    format!("{FEED}\"{}\"\n", world.path("bad.txt").display())
}

/// A feed that changes from one number to the next, but for one source.
fn write_feed(world: &World, number: u32, entries: u32) -> Result<()> {
    let mut text = format!("{OTHER}\n");
    for n in 0..entries {
        writeln!(text, "10.{}.{}.{}", 100 + number % 100, n >> 8 & 255, n & 255)?;
        writeln!(text, "172.{}.{}.0/25", 16 + (number + (n >> 8)) % 16, n & 255)?;
    }
    fs::write(world.path("bad.new"), text)?;
    Ok(fs::rename(world.path("bad.new"), world.path("bad.txt"))?)
}

fn open(world: &World, from: &str) -> bool {
    connect(&world.out, from, &format!("{GATEWAY}:25"), Duration::from_millis(1500)).is_ok()
}

fn feed(world: &World) -> Result<serde_json::Value> {
    world.json(&["feed", "show", "bad"])
}

/// Sends a SYN from OTHER every few milliseconds while `meanwhile` runs. Says how many were sent,
/// and how many connections came of them.
fn probing(world: &World, meanwhile: impl FnOnce() -> Result<()>) -> Result<(u32, u32)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let prober = scope.spawn(|| world.out.enter(|| probe(&over)));
        let done = meanwhile();
        over.store(true, Ordering::Relaxed);
        let found = prober.join().expect("the prober does not panic")??;
        done.map(|()| found)
    })
}

fn probe(over: &AtomicBool) -> Result<(u32, u32)> {
    let from: SockAddr = std::net::SocketAddr::new(OTHER.parse()?, 0).into();
    let to: SockAddr = std::net::SocketAddr::new(GATEWAY.parse()?, 25).into();
    let (mut sockets, mut sent, mut answered) = (std::collections::VecDeque::new(), 0, 0);
    let is_answered = |socket: &Socket| -> Result<bool> {
        let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut polled, PollTimeout::ZERO)?;
        Ok(polled[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLOUT)))
    };
    while !over.load(Ordering::Relaxed) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
        socket.bind(&from)?;
        let _in_progress = socket.connect(&to);
        sent += 1;
        sockets.push_back(socket);
        if sockets.len() > PROBES_MAX
            && let Some(oldest) = sockets.pop_front()
        {
            answered += u32::from(is_answered(&oldest)?);
        }
        std::thread::sleep(PROBE_EVERY);
    }
    for socket in &sockets {
        answered += u32::from(is_answered(socket)?);
    }
    Ok((sent, answered))
}

#[test]
fn a_feed_is_enforced_and_no_packet_sees_a_mixture_while_it_is_replaced() -> Result<()> {
    let mut world = World::new()?;
    write_feed(&world, 0, 3000)?;
    world.start(&config(&world))?;
    until("the feed", || Ok((feed(&world)?["phase"] == "idle").then_some(())))?;
    ensure!(!open(&world, OTHER) && open(&world, HONEST));
    let (sent, answered) = probing(&world, || {
        for number in 1..6 {
            write_feed(&world, number, 3000)?;
            let said = world.cli_ok(&["feed", "refresh", "bad", "--wait"])?;
            ensure!(said.contains("in force"), "{said}");
            // The generation before is gone, and this one is there.
            for (number, verdict) in [(number - 1, "pass"), (number, "denied")] {
                let address = format!("10.{}.1.1", 100 + number);
                let told = world.cli(&["--json", "explain", &address])?.stdout;
                let told: serde_json::Value = serde_json::from_str(&told)?;
                ensure!(told["edge"]["verdict"] == verdict, "{address}: {told}");
            }
        }
        Ok(())
    })?;
    ensure!(sent > 100, "only {sent} SYNs were sent");
    ensure!(answered == 0, "{answered} of {sent} SYNs were answered");
    // A feed that no longer has the source lets it in.
    fs::write(world.path("bad.txt"), "192.0.2.0/24\n")?;
    world.cli_ok(&["feed", "refresh", "bad", "--force", "--wait"])?;
    ensure!(open(&world, OTHER), "the source is still kept out");
    ensure!(world.json(&["status"])?["edge"]["health"]["drift"] == 0);
    world.stop()
}

#[test]
fn an_edge_killed_while_it_publishes_leaves_the_old_feed_and_the_next_one_has_the_new() -> Result<()>
{
    let mut world = World::new()?;
    write_feed(&world, 0, 1000)?;
    world.start(&config(&world))?;
    until("the feed", || Ok((feed(&world)?["phase"] == "idle").then_some(())))?;
    let (sent, answered) = probing(&world, || {
        for number in 1..4 {
            write_feed(&world, number, 4000)?;
            let edge = world.daemon_pid("edge")?;
            world.cli_ok(&["feed", "refresh", "bad"])?;
            until("publishing to begin, or to be over", || {
                let phase = feed(&world)?["phase"].clone();
                Ok((phase == "publishing" || phase == "idle").then_some(()))
            })?;
            kill(edge, Signal::SIGKILL)?;
            until("the next edge", || {
                let next = world.daemon_pid("edge").ok().filter(|&pid| pid != edge);
                Ok(next.and_then(|_| world.cli_ok(&["status"]).ok()))
            })?;
            world.until_verdict(&format!("10.{}.1.1", 100 + number), "denied")?;
        }
        Ok(())
    })?;
    ensure!(sent > 100, "only {sent} SYNs were sent");
    ensure!(answered == 0, "{answered} of {sent} SYNs were answered");
    ensure!(world.json(&["status"])?["edge"]["health"]["drift"] == 0);
    world.stop()
}

#[test]
fn a_feed_that_shrank_is_refused_in_the_status_and_stays_in_force() -> Result<()> {
    let mut world = World::new()?;
    write_feed(&world, 0, 50)?;
    world.start(&config(&world))?;
    until("the feed", || Ok((feed(&world)?["phase"] == "idle").then_some(())))?;
    fs::write(world.path("bad.txt"), "192.0.2.0/24\n")?;
    let said = world.cli(&["feed", "refresh", "bad", "--wait"])?;
    ensure!(said.status.code() == Some(1) && said.stdout.contains("shrank"), "{said:#?}");
    ensure!(!open(&world, OTHER), "the old feed went");
    let status = world.cli_ok(&["status"])?;
    ensure!(status.contains("feed bad is failing: the list shrank"), "{status}");
    let list = world.cli_ok(&["feed", "list"])?;
    ensure!(list.contains("failing") && list.contains("shrank"), "{list}");
    ensure!(world.cli(&["feed", "show", "none"])?.status.code() == Some(3));
    let hits = until("hits of the feed's rule", || {
        let stats = world.json(&["stats"])?;
        let rules = stats["edge"]["rules"].as_array().context("rules")?.clone();
        Ok(rules.into_iter().find(|rule| rule["rule"] == "feed bad"))
    })?;
    ensure!(hits["packets"].as_u64() > Some(0), "{hits}");
    let top = world.json(&["top", "--once", "--interval", "100ms"])?;
    let shown = &top["feeds"][0];
    ensure!(shown["name"] == "bad" && shown["state"] == "failing", "{shown}");
    ensure!(shown["in_force"].as_u64() > Some(50), "{shown}");
    ensure!(shown["hits"].as_u64() >= hits["packets"].as_u64(), "{shown} and {hits}");
    world.stop()
}
