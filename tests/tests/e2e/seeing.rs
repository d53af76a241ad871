//! What an administrator sees of the filter: events, the live view, hits, and whether the kernel
//! has what the lists call for.

use std::fs::{self, File};
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use postern_tests::{
    dialogue::connect,
    process::{Process, output, until},
    pty::Pty,
    world::{GATEWAY, MAX_ENTRIES, OTHER, OTHER_V6, World},
};
use relay_common::layout::LAYOUT_VERSION;
use relay_common::packed::{Lines, Place};
use relay_common::parse::{Family, Source};
use serde_json::Value;

/// One SYN is enough to be told about.
const ONE_SYN: Duration = Duration::from_millis(300);

fn knock(world: &World, from: &str) {
    let to = if from.contains(':') { "[2001:db8:1::1]:25" } else { "203.0.113.1:25" };
    // Whether it is let in is not the question here.
    let _answer = connect(&world.out, from, to, ONE_SYN);
}

fn client(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.postern(&["--socket-dir"]);
    command.arg(world.socket_dir()).args(arguments);
    command
}

fn row_of(world: &World, prefix: &str) -> Result<Value> {
    let list = world.json(&["deny", "list"])?;
    let rows = list["rows"].as_array().context("no rows")?;
    let row = rows.iter().find(|row| row["prefix"] == prefix);
    row.cloned().with_context(|| format!("no row of {prefix}: {list}"))
}

#[test]
fn events_are_followed_until_ctrl_c_and_kept_for_later() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    world.cli_ok(&["deny", "add", OTHER_V6])?;
    let seen = world.path("events");
    let mut follow = client(&world, &["--json", "events", "--follow"]);
    let mut follow = Process::start(follow.stdout(File::create(&seen)?))?;
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&seen).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    for (source, rule) in [(OTHER, "203.0.113.99/32"), (OTHER_V6, "2001:db8:1:99::99/128")] {
        let event = until("an event", || {
            knock(&world, source);
            Ok(lines().into_iter().find(|line| line["address"] == source))
        })?;
        ensure!(event["fate"] == "dropped" && event["port"] == 25, "{event}");
        ensure!(event["reason"] == "manual" && event["prefix"] == rule, "{event}");
        ensure!(event["rule"] == format!("cli {rule}"), "{event}");
        let time = event["time"].as_str().context("no time")?;
        ensure!(time.starts_with("20") && time.ends_with('Z'), "{event}");
    }
    follow.signal(Signal::SIGINT)?;
    ensure!(follow.wait()?.success());

    let text = world.cli_ok(&["events", "--last", "1000"])?;
    ensure!(text.contains("dropped  203.0.113.99 port 25 by cli 203.0.113.99/32"), "{text}");
    ensure!(world.cli_ok(&["events", "-n", "1"])?.lines().count() == 1);
    world.stop()
}

#[test]
fn whoever_reads_no_more_ends_it_and_a_stop_ends_it_too() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    knock(&world, OTHER);
    until("an event", || Ok((!world.cli_ok(&["events"])?.is_empty()).then_some(())))?;
    let follow = client(&world, &["events", "--follow"]);
    let line = [follow.get_program()].into_iter().chain(follow.get_args());
    let line: Vec<_> = line.map(|word| word.to_string_lossy()).collect();
    let script = format!("set -o pipefail; {} | head -n 1", line.join(" "));
    let first = output(Command::new("bash").args(["-c", &script]))?.success()?;
    ensure!(first.stdout.contains(OTHER), "{first:?}");

    let mut follow = client(&world, &["events", "--follow"]);
    let seen = world.path("events");
    let mut follow = Process::start(follow.stdout(File::create(&seen)?))?;
    until("a line", || Ok((!fs::read(&seen)?.is_empty()).then_some(())))?;
    let stopping = std::time::Instant::now();
    world.stop()?;
    ensure!(stopping.elapsed() < Duration::from_secs(5), "a follower held up the stop");
    follow.wait()?;
    Ok(())
}

#[test]
fn above_the_budget_events_are_left_out_and_counted() -> Result<()> {
    let mut world = World::new()?;
    world.start("[filter]\nevents_per_second = 1\n")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let (mut told, mut left_out) = (0, 0);
    until("events that are left out", || {
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| knock(&world, OTHER));
            }
        });
        let stats = world.json(&["stats"])?;
        let count = |name: &str| stats["edge"]["events"][name].as_u64().unwrap_or(0);
        (told, left_out) = (count("told"), count("left out"));
        Ok((left_out > 0).then_some(()))
    })?;
    ensure!(told > 0, "{told} told and {left_out} left out");
    world.stop()?;

    world.start("[filter]\nevents_per_second = 0\n")?;
    knock(&world, OTHER);
    let quiet = world.cli(&["events"])?.success()?;
    ensure!(quiet.stdout.is_empty(), "{quiet:?}");
    ensure!(quiet.stderr.contains("filter.events_per_second"), "{quiet:?}");
    world.stop()
}

#[test]
fn hits_and_events_survive_a_kill_of_the_edge() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    knock(&world, OTHER);
    let before = row_of(&world, "203.0.113.99/32")?;
    let hits = before["hits"].as_u64().context("no hits")?;
    ensure!(hits > 0 && before["last_hit"].is_string(), "{before}");

    // Read, so that none but a later one is left in the ring.
    until("the first event", || Ok(world.cli_ok(&["events"])?.contains(OTHER).then_some(())))?;

    let edge = world.daemon_pid("edge")?;
    kill(edge, Signal::SIGKILL)?;
    until("the edge to be gone", || {
        Ok((world.daemon_pid("edge").ok() != Some(edge)).then_some(()))
    })?;
    // Nobody reads now, and the ring keeps it.
    knock(&world, OTHER);
    until("another edge", || {
        Ok(world.daemon_pid("edge").ok().filter(|pid| *pid != edge).map(|_| ()))
    })?;
    until("its answer", || Ok(world.cli(&["status"])?.status.success().then_some(())))?;
    let after = row_of(&world, "203.0.113.99/32")?;
    ensure!(after["hits"].as_u64() > Some(hits), "{before} and then {after}");
    until("the event of the time between", || {
        Ok(world.cli_ok(&["events"])?.contains(OTHER).then_some(()))
    })?;
    let stats = world.cli_ok(&["stats"])?;
    ensure!(stats.contains("cli 203.0.113.99/32"), "{stats}");
    world.stop()
}

#[test]
fn hits_survive_restarts_that_take_the_filter_off() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    knock(&world, OTHER);
    let mut hits = row_of(&world, "203.0.113.99/32")?["hits"].as_u64().context("no hits")?;
    ensure!(hits > 0);
    for asked in [false, true] {
        if asked {
            world.cli_ok(&["edge", "stop", "--detach"])?;
            world.postern.take().context("it was started")?.wait()?;
        } else {
            world.stop()?;
        }
        ensure!(!world.gw.run("ip", &["-d", "link", "show", "eth0"])?.contains("prog/xdp"));
        world.start("")?;
        let row = row_of(&world, "203.0.113.99/32")?;
        ensure!(row["hits"] == hits && row["last_hit"].is_string(), "{hits} hits, and then {row}");
        let dropped = world.json(&["stats"])?["edge"]["packets"]["dropped"].as_u64();
        ensure!(dropped == Some(hits), "{hits} hits, and {dropped:?} dropped");
        knock(&world, OTHER);
        let more = row_of(&world, "203.0.113.99/32")?["hits"].as_u64();
        ensure!(more > Some(hits), "{more:?} hits after {hits}");
        hits = more.context("no hits")?;
    }
    world.stop()
}

#[test]
fn what_a_filter_without_an_edge_has_dropped_is_kept_when_it_ends() -> Result<()> {
    let mut world = World::new()?;
    world.start_with("", &["--keep-filter"])?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let mut hits = 0;
    for filter in ["kernel", "userspace", "kernel"] {
        world.stop()?;
        // The filter goes on by itself, and then ends: for a start without it, or by command.
        knock(&world, OTHER);
        if filter == "kernel" {
            let stop = ["edge", "stop", "--detach", "--config"];
            output(world.postern(&stop).arg(world.write_config("")?))?.success()?;
            ensure!(!world.gw.run("ip", &["-d", "link", "show", "eth0"])?.contains("prog/xdp"));
        }
        world.start_with("", &["--keep-filter", "--filter", filter])?;
        let more = row_of(&world, "203.0.113.99/32")?["hits"].as_u64();
        ensure!(more > Some(hits), "{filter}: {more:?} hits after {hits}");
        let dropped = world.json(&["stats"])?["edge"]["packets"]["dropped"].as_u64();
        ensure!(dropped == more, "{more:?} hits, and {dropped:?} dropped");
        hits = more.context("no hits")?;
        if filter == "userspace" {
            world.stop()?;
            world.start_with("", &["--keep-filter", "--filter", "kernel"])?;
        }
    }
    // What cannot be kept is told, and the filter is off all the same.
    world.stop()?;
    fs::write(world.path("state/edge/lists.db"), "no database at all, but some other file")?;
    let stop = ["edge", "stop", "--detach", "--config"];
    let off = output(world.postern(&stop).arg(world.write_config("")?))?.success()?;
    ensure!(off.stderr.contains("is lost") && off.stdout.contains("was taken off"), "{off:?}");
    ensure!(!world.gw.run("ip", &["-d", "link", "show", "eth0"])?.contains("prog/xdp"));
    Ok(())
}

#[test]
fn what_a_filter_of_another_layout_has_dropped_is_kept_when_this_one_takes_over() -> Result<()> {
    let mut world = World::new()?;
    world.start_with("", &["--keep-filter"])?;
    world.cli_ok(&["deny", "add", OTHER])?;
    knock(&world, OTHER);
    let hits = row_of(&world, "203.0.113.99/32")?["hits"].as_u64().context("no hits")?;
    world.stop()?;
    // Since then, it counts without an edge.
    knock(&world, OTHER);
    fs::rename(world.pins.join(format!("v{LAYOUT_VERSION}")), world.pins.join("v50"))?;
    world.start("")?;
    ensure!(!world.pins.join("v50").exists());
    let more = row_of(&world, "203.0.113.99/32")?["hits"].as_u64();
    ensure!(more > Some(hits), "{more:?} hits after {hits}");
    let dropped = world.json(&["stats"])?["edge"]["packets"]["dropped"].as_u64();
    ensure!(dropped == more, "{more:?} hits, and {dropped:?} dropped");
    world.stop()
}

#[test]
fn what_somebody_changes_in_the_kernel_is_said_repaired_and_counted() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    let pins = world.pins.join(format!("v{LAYOUT_VERSION}"));
    // A host stands in a line of the packed table; its line is emptied.
    let address: IpAddr = OTHER.parse()?;
    let lines = Lines::for_entries(Family::V4, MAX_ENTRIES);
    let line = Place::of(&Source::from(address), lines).line;
    let host = (OTHER, "LINES_V4", line.to_ne_bytes().to_vec(), "update", vec![0; 64]);
    // A prefix stands in the trie. Never to expire, rule and reason 0, submission alone, /31.
    let net = "203.0.113.98/31";
    let key = [&31u32.to_ne_bytes()[..], &[203, 0, 113, 98]].concat();
    let other_scope = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 31, 0];
    let changed = (net, "DENY_V4", key.clone(), "update", other_scope);
    let gone = (net, "DENY_V4", key, "delete", Vec::new());
    for (drift, (denied, map, key, verb, value)) in (1..).zip([host, changed, gone]) {
        world.cli_ok(&["deny", "add", denied])?;
        let explained = world.json(&["explain", OTHER])?;
        ensure!(explained["edge"]["agrees"] == true, "{explained}");
        let mut bpftool = Command::new("bpftool");
        bpftool.args(["map", verb, "pinned"]).arg(pins.join(map));
        bpftool.arg("key").args(key.iter().map(u8::to_string));
        if !value.is_empty() {
            bpftool.arg("value").args(value.iter().map(u8::to_string));
        }
        output(&mut bpftool)?.success()?;
        let explained = world.json(&["explain", OTHER])?;
        let edge = &explained["edge"];
        ensure!(edge["verdict"] == "pass" && edge["desired"] == "denied", "{verb}: {edge}");
        ensure!(edge["agrees"] == false, "{edge}");
        let text = world.cli_ok(&["explain", OTHER])?;
        ensure!(text.contains("the lists differ and deny it"), "{text}");
        world.until_verdict(OTHER, "denied")?;
        let status = world.json(&["status"])?;
        ensure!(status["edge"]["health"]["drift"] == drift, "{verb}: {}", status["edge"]["health"]);
        world.cli_ok(&["deny", "del", denied])?;
    }
    let status = world.cli_ok(&["status"])?;
    ensure!(status.contains("3 differences between lists and filter repaired"), "{status}");
    world.stop()
}

#[test]
fn the_userspace_filter_tells_of_what_it_refuses() -> Result<()> {
    let mut world = World::new()?;
    world.start_with("", &["--filter", "userspace"])?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let to = format!("{GATEWAY}:587");
    postern_tests::dialogue::Dialogue::open(&world.out, OTHER, &to)?;
    let line =
        until("an event", || Ok(world.cli_ok(&["events"])?.lines().next().map(str::to_owned)))?;
    ensure!(line.contains("dropped  203.0.113.99 port 587 by cli 203.0.113.99/32"), "{line}");
    let top = world.json(&["top", "--once", "--interval", "100ms"])?;
    ensure!(top["top"]["sources"][0]["what"] == OTHER, "{top}");
    ensure!(top["status"]["mode"] == "userspace", "{top}");
    world.stop()
}

/// What the screen was entered with is taken back, and whoever sits there can type.
fn is_restored(pty: &Pty) -> Result<()> {
    // The program has ended, and what it wrote last may still be on its way to whoever looks.
    for (given_back, taken, what) in [
        ("\x1b[?1049l", "\x1b[?1049h", "the usual screen"),
        ("\x1b[?25h", "\x1b[?25l", "the cursor"),
    ] {
        let back = until(&format!("{what} to be there again"), || {
            let shown = pty.shown();
            Ok((shown.rfind(given_back) > shown.rfind(taken)).then_some(()))
        });
        back.with_context(|| format!("{:?}", pty.shown()))?;
    }
    ensure!(pty.types_as_usual()?, "the terminal is raw");
    Ok(())
}

#[test]
fn top_shows_the_figures_and_gives_the_terminal_back() -> Result<()> {
    let mut world = World::new()?;
    let _folder = fs::create_dir_all(world.socket_dir());
    let top = client(&world, &["top", "--interval", "200ms"]);
    // It may be there before the edge is.
    let mut pty = Pty::start(&top, 80, 24)?;
    pty.until_shown("edge not reachable")?;
    ensure!(!pty.types_as_usual()?);
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    knock(&world, OTHER);
    for part in ["native on eth0", "203.0.113.99", "203.0.113.0/24", "203.0.113.99/32"] {
        pty.until_shown(part)?;
    }
    pty.press(b"q")?;
    ensure!(pty.wait()?.success());
    is_restored(&pty)?;

    for keys in [&b"\x03"[..], b"\x1b"] {
        let mut pty = Pty::start(&top, 44, 18)?;
        pty.until_shown("203.0.113.99")?;
        pty.press(keys)?;
        ensure!(pty.wait()?.success(), "{keys:?}");
        is_restored(&pty)?;
    }
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut pty = Pty::start(&top, 132, 50)?;
        pty.until_shown("203.0.113.99")?;
        pty.signal(signal)?;
        ensure!(pty.wait()?.success(), "{signal}");
        is_restored(&pty)?;
    }

    let piped = world.cli(&["top"])?;
    ensure!(piped.status.code() == Some(1), "{piped:?}");
    ensure!(piped.stderr.contains("needs a terminal"), "{piped:?}");
    let once = world.cli_ok(&["top", "--once", "--interval", "100ms"])?;
    for part in ["native on eth0", "203.0.113.99", "cli 203.0.113.99/32", "dropped"] {
        ensure!(once.contains(part), "{part} is missing: {once}");
    }
    world.stop()
}
