//! `postern run`: comes up whole or not at all, and leaves nothing behind.

use std::{fs, io::Read, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use postern_tests::{
    dialogue::connect,
    process::{Output, PATIENCE, output},
    world::{OTHER, World},
};

fn run(world: &World, extra: &str, arguments: &[&str]) -> Result<Output> {
    let config = world.write_config(extra)?;
    let mut command = world.postern(&["run", "--config"]);
    output(command.arg(config).args(arguments))
}

/// Ends with an error that says this, with a remedy, and leaves no program attached.
fn fails(world: &World, outcome: &Output, says: &[&str]) -> Result<()> {
    let both = format!("{}{}", outcome.stdout, outcome.stderr);
    ensure!(!outcome.status.success(), "it should have failed:\n{both}");
    for part in says {
        ensure!(both.contains(part), "does not say {part:?}:\n{both}");
    }
    ensure!(!both.contains("panicked"), "{both}");
    let link = world.gw.run("ip", &["-d", "link", "show", "eth0"])?;
    ensure!(!link.contains("prog/xdp"), "something was left attached: {link}");
    Ok(())
}

#[test]
fn a_port_in_use_is_one_sentence_and_nothing_stays_attached() -> Result<()> {
    let world = World::new()?;
    let _taken = world.gw.enter(|| std::net::TcpListener::bind("0.0.0.0:25"))??;
    fails(&world, &run(&world, "", &[])?, &["port is in use", "0.0.0.0:25"])
}

#[test]
fn a_missing_interface_is_one_sentence() -> Result<()> {
    let world = World::new()?;
    fails(&world, &run(&world, "", &["--interface", "wan7"])?, &["wan7"])
}

#[test]
fn another_xdp_program_is_named_and_left_alone() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    let config = fs::read_to_string(world.write_config("")?)?;
    let other = world.path("other.toml");
    let folder = world.path("other").display().to_string();
    let first = world.path("").display().to_string();
    let first = first.trim_end_matches('/');
    let pins = world.pins.display().to_string();
    fs::write(&other, config.replace(first, &folder).replace(&pins, &format!("{pins}/other")))?;
    let outcome = output(world.postern(&["run", "--config"]).arg(&other))?;
    let both = format!("{}{}", outcome.stdout, outcome.stderr);
    ensure!(!outcome.status.success() && both.contains("another XDP program"), "{both}");
    ensure!(both.contains("postern"), "the program is not named: {both}");
    world.cli_ok(&["deny", "add", OTHER])?;
    world.stop()
}

#[test]
fn a_wrong_configuration_names_file_line_value_and_remedy() -> Result<()> {
    let world = World::new()?;
    let outcome = run(&world, "[ban]\nwindow = \"soon\"\n", &[])?;
    fails(&world, &outcome, &["postern.toml:", "ban.window", "\"soon\"", "10min"])
}

#[test]
fn both_signals_end_it_cleanly_and_the_summary_says_what_an_administrator_wants() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut world = World::new()?;
        world.start("")?;
        let summary = world.log();
        for part in ["eth0", "native", ":25", ":587", "inside.test", "run", "status"] {
            ensure!(summary.contains(part), "the summary lacks {part:?}:\n{summary}");
        }
        let mut process = world.postern.take().expect("it was started");
        process.signal(signal)?;
        let status = process.wait()?;
        ensure!(status.success(), "{signal} ended it with {status}:\n{}", world.log());
        let link = world.gw.run("ip", &["-d", "link", "show", "eth0"])?;
        ensure!(!link.contains("prog/xdp"), "left attached after {signal}: {link}");
        ensure!(!world.pins.exists(), "pins were left");
    }
    Ok(())
}

#[test]
fn the_relay_holds_no_privilege() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    let relay = world.daemon_pid("relay")?;
    let status = fs::read_to_string(format!("/proc/{relay}/status"))?;
    let field = |name: &str| {
        status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
    };
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        ensure!(field(capabilities).ends_with("0000000000000000"), "{}", field(capabilities));
    }
    ensure!(!field("Uid:").split_whitespace().skip(1).any(|uid| uid == "0"), "{}", field("Uid:"));
    ensure!(!field("Gid:").split_whitespace().skip(1).any(|gid| gid == "0"), "{}", field("Gid:"));
    ensure!(field("NoNewPrivs:").ends_with('1'), "{}", field("NoNewPrivs:"));
    world.stop()
}

#[test]
fn garbage_on_a_control_socket_ends_nothing() -> Result<()> {
    use std::io::Write;
    let mut world = World::new()?;
    world.start("")?;
    // A daemon that died would be started again, and `status` be fine.
    let daemons = || -> Result<_> { Ok([world.daemon_pid("edge")?, world.daemon_pid("relay")?]) };
    let before = daemons()?;
    for socket in ["edge.sock", "relay.sock", "run.sock"] {
        for garbage in [
            &b"\x00\xff\xfe garbage\r\n\r\n"[..],
            b"GET",
            b"POST /v1/entries HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n{",
        ] {
            let mut stream =
                std::os::unix::net::UnixStream::connect(world.socket_dir().join(socket))?;
            // The daemon may close first; that is its right.
            let _closed = stream.write_all(garbage);
        }
    }
    world.cli_ok(&["status"])?;
    ensure!(daemons()? == before, "a daemon died:\n{}", world.log());
    world.stop()
}

#[test]
fn the_userspace_filter_refuses_at_accept_and_says_so() -> Result<()> {
    let mut world = World::new()?;
    world.start_with("", &["--filter", "userspace"])?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let denied = postern_tests::dialogue::Dialogue::open(&world.out, OTHER, "203.0.113.1:25")?;
    ensure!(denied.greeting.starts_with("554 5.7.1"), "{}", denied.greeting);
    let explained = world.cli_ok(&["explain", OTHER])?;
    ensure!(world.json(&["stats"])?["edge"]["packets"]["dropped"] == 1, "not counted: {explained}");
    // A scope is about the port that was connected to, as in the kernel.
    world.cli_ok(&["deny", "add", OTHER, "--scope", "mx"])?;
    for (to, greets) in [("203.0.113.1:25", "554"), ("203.0.113.1:587", "220")] {
        let greeting = postern_tests::dialogue::Dialogue::open(&world.out, OTHER, to)?.greeting;
        ensure!(greeting.starts_with(greets), "{to}: {greeting}");
    }
    let v6 = postern_tests::world::OTHER_V6;
    world.cli_ok(&["deny", "add", v6, "--scope", "submission"])?;
    for (to, greets) in [("[2001:db8:1::1]:25", "220"), ("[2001:db8:1::1]:587", "554")] {
        let greeting = postern_tests::dialogue::Dialogue::open(&world.out, v6, to)?.greeting;
        ensure!(greeting.starts_with(greets), "{to}: {greeting}");
    }
    // Where TLS comes first, nobody could read a reply, and the handshake would be for nothing.
    let mut early = connect(&world.out, v6, "[2001:db8:1::1]:465", PATIENCE)?;
    // Well before a handshake that does not come ends the connection.
    early.set_read_timeout(Some(Duration::from_secs(10)))?;
    ensure!(early.read(&mut [0])? == 0, "something was said");
    let status = world.cli_ok(&["status"])?;
    ensure!(status.contains("userspace"), "{status}");
    let link = world.gw.run("ip", &["-d", "link", "show", "eth0"])?;
    ensure!(!link.contains("prog/xdp"), "a program is attached: {link}");
    world.stop()
}

#[test]
fn the_relays_user_may_ask_for_bans_and_lift_none() -> Result<()> {
    use std::{io::Write, process::Stdio};
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    let ask_at = |socket: &str, method: &str, path: &str, body: &str| -> Result<String> {
        let socket = world.socket_dir().join(socket);
        let mut nc = std::process::Command::new("setpriv")
            .args(["--reuid=postern", "--regid=postern", "--clear-groups", "nc", "-U"])
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        nc.stdin.take().expect("it is piped").write_all(request.as_bytes())?;
        Ok(String::from_utf8_lossy(&nc.wait_with_output()?.stdout).into_owned())
    };
    let ask = |method: &str, path: &str, body: &str| ask_at("edge.sock", method, path, body);
    let flushed = ask("POST", "/v1/lists/deny/flush", "{}")?;
    ensure!(flushed.starts_with("HTTP/1.1 403"), "{flushed}");
    let denied = r#"{"prefixes":["0.0.0.0/0"],"scope":"all"}"#;
    let added = ask("POST", "/v1/lists/deny/entries", denied)?;
    ensure!(added.starts_with("HTTP/1.1 403"), "{added}");
    let events = ask("GET", "/v1/events?follow=true", "")?;
    ensure!(events.starts_with("HTTP/1.1 403"), "{events}");
    for socket in ["edge.sock", "run.sock"] {
        let stopped = ask_at(socket, "POST", "/v1/stop", "{\"detach\":true}")?;
        ensure!(stopped.starts_with("HTTP/1.1 403"), "{socket}: {stopped}");
    }
    let status = ask("GET", "/v1/status", "")?;
    ensure!(status.starts_with("HTTP/1.1 200"), "{status}");
    ensure!(world.cli_ok(&["deny", "list"])?.contains(OTHER), "the entry is gone");
    world.stop()
}

#[test]
fn with_json_each_line_of_standard_output_is_an_object() -> Result<()> {
    let mut world = World::new()?;
    world.start("[log]\nformat = \"json\"\n")?;
    world.cli_ok(&["deny", "add", OTHER])?;
    world.stop()?;
    let log = world.log();
    for line in log.lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        ensure!(event["message"].is_string() && event["level"].is_string(), "{line}");
    }
    ensure!(log.contains("is up.") && log.contains("relays nothing"), "{log}");
    Ok(())
}
