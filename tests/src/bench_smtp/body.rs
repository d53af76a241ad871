//! A large message: how much memory it takes while it comes in and goes out.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result};

use super::client::Client;
use super::scene::{Scene, Side};
use crate::figure::{Bar, Line, Rounds, Table};
use crate::process::until;

const MIB: usize = 1024 * 1024;
const SIZES_MIB: [usize; 3] = [1, 10, 50];
/// Buffers on the way in and out, and what the first of all messages sets up, whatever the size.
const GROWTH_KIB_AT_MOST: f64 = 4096.0;

/// # Errors
/// A message did not go through.
pub(super) fn measure(scene: &Scene) -> Result<Vec<Table>> {
    let mut all = SIZES_MIB.map(|size| (size, Rounds::default()));
    let fresh = status_kib(&format!("/proc/{}", scene.relay()?), "VmRSS:")?;
    for _ in 0..scene.rounds() {
        for (size, rounds) in &mut all {
            let peak = peak_kib(scene, *size).with_context(|| format!("{size} MiB"))?;
            rounds.push(peak - fresh);
        }
    }
    let lines = all.iter().map(|(size, rounds)| {
        let line = Line::new(format!("Postern, {size} MiB through DATA"), rounds)?;
        Ok(line.bar(Bar::AtMost(GROWTH_KIB_AT_MOST)))
    });
    Ok(vec![Table {
        name: "body",
        title: format!(
            "Memory of a large message, from DATA to smtp-sink: the most that the relay held above \
             what it held after its start ({} rounds)",
            scene.rounds()
        ),
        unit: "KiB",
        lines: lines.collect::<Result<_>>()?,
    }])
}

fn peak_kib(scene: &Scene, size_mib: usize) -> Result<f64> {
    let server = scene.servers.iter().find(|server| server.side == Side::Postern);
    let server = server.context("Postern is not measured")?;
    server.group.idle()?;
    let process = format!("/proc/{}", scene.relay()?);
    // 5: the peak is what is held now (proc_pid_clear_refs(5)).
    fs::write(format!("{process}/clear_refs"), "5")?;
    let arrived = scene.sink.messages();
    scene.world.out.enter(|| send(server.address, size_mib))??;
    until("the message to be with smtp-sink", || {
        Ok((scene.sink.messages() > arrived).then_some(()))
    })?;
    server.group.idle()?;
    status_kib(&process, "VmHWM:")
}

fn send(server: std::net::Ipv4Addr, size_mib: usize) -> Result<()> {
    let mut client = Client::connect(server, None)?;
    client.say("EHLO client.foreign.test\r\n", "250")?;
    client.say("MAIL FROM:<sender@foreign.test>\r\n", "250")?;
    client.say("RCPT TO:<user@inside.test>\r\n", "250")?;
    client.say("DATA\r\n", "354")?;
    let line = "0123456789abcdef".repeat(4) + "\r\n";
    let lines = line.repeat(64 * 1024 / line.len());
    let mut left = size_mib * MIB;
    client.stream().write_all(b"Subject: large\r\n\r\n")?;
    while left > 0 {
        client.stream().write_all(lines.as_bytes())?;
        left = left.saturating_sub(lines.len());
    }
    client.say(".\r\n", "250")?;
    client.say("QUIT\r\n", "221")
}

fn status_kib(process: &str, field: &str) -> Result<f64> {
    let text = fs::read_to_string(format!("{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let figure = line.and_then(|line| line.split_whitespace().next());
    Ok(figure.with_context(|| format!("{process}/status has no {field}"))?.parse()?)
}
