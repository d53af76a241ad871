//! Honest mail while a flood runs: messages a second from smtp-source to smtp-sink behind the same
//! interface, with our filter and without one.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use relay_common::parse::Family;

use super::flood::{self, Flood, IPV4, Target};
use super::rules::Folder;
use super::sides;
use super::sources::{DenyList, MILLION};
use crate::figure::{Line, Rounds, Table};
use crate::netns::{Netns, veth};
use crate::process::{Process, until};

const ROUNDS: usize = 3;
const MESSAGES: usize = 4_000;
const MESSAGE_BYTES: usize = 4_096;
const SESSIONS: usize = 10;
/// Packets that the flood offers each second, a share of them in each step. No more than one slow
/// CPU can answer, so that the flood is the same with a filter and without.
const OFFERED_PER_S: usize = 50_000;
const STEP: Duration = Duration::from_millis(2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const HONEST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A gateway with a sink for mail, and the outside.
struct Scene {
    _sink: Process,
    outside: Netns,
    gateway: Netns,
}

/// What was measured with a filter or without one.
#[derive(Default)]
struct Measured {
    quiet: Rounds,
    flooded: Rounds,
    packets_per_s: Rounds,
}

/// # Errors
/// No root or no BPF, or smtp-source or smtp-sink is missing.
pub(super) fn measure() -> Result<Table> {
    let mut list = DenyList::hosts_only(Family::V4, MILLION);
    ensure!(!list.covers(HONEST.into()), "the honest client is on the list");
    let sources = flood::v4_sources(&list.denied());
    let folder = Folder::new()?;
    let (guarded, open) = (Scene::new()?, Scene::new()?);
    let _filter = sides::filter(&guarded.gateway, &folder.path("pins"), &list)?;
    let (mut with, mut without) = (Measured::default(), Measured::default());
    for _ in 0..ROUNDS {
        for (scene, measured) in [(&guarded, &mut with), (&open, &mut without)] {
            measured.quiet.push(scene.messages_per_s()?);
            scene.flooded(&sources, measured)?;
        }
    }
    table(&with, &without)
}

impl Scene {
    fn new() -> Result<Self> {
        let (gateway, outside) = (Netns::new("mail")?, Netns::new("outside")?);
        veth(&gateway, "eth0", &outside, "eth0")?;
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        gateway.run("ip", &["link", "set", "eth0", "address", &mac])?;
        gateway.addr("eth0", &format!("{GATEWAY}/24"))?;
        outside.addr("eth0", &format!("{HONEST}/24"))?;
        gateway.route("default", &HONEST.to_string())?;
        let mut sink = gateway.command("smtp-sink");
        sink.args(["-u", "nobody", &format!("{GATEWAY}:25"), "1000"]).stdout(Stdio::null());
        let sink = Process::start(&mut sink)?;
        until("smtp-sink to listen", || {
            Ok(gateway.run("ss", &["-Hltn", "sport = :25"])?.contains(":25").then_some(()))
        })?;
        Ok(Self { _sink: sink, outside, gateway })
    }

    fn messages_per_s(&self) -> Result<f64> {
        let mut load = self.outside.command("smtp-source");
        load.args(["-s", &SESSIONS.to_string(), "-m", &MESSAGES.to_string()]);
        load.args(["-l", &MESSAGE_BYTES.to_string(), "-f", "load@foreign.test"]);
        load.args(["-t", "user@inside.test", &format!("{GATEWAY}:25")]).stdout(Stdio::null());
        let started = Instant::now();
        let ended = Process::start(&mut load)?.wait()?;
        ensure!(ended.success(), "smtp-source failed");
        Ok(MESSAGES as f64 / started.elapsed().as_secs_f64())
    }

    /// The same, with the flood around it.
    fn flooded(&self, sources: &Arc<[u32]>, measured: &mut Measured) -> Result<()> {
        let target = Target { mac: MAC, address: GATEWAY, ethertype: IPV4 };
        let flood = Flood::open(&self.outside, "eth0", target, Arc::clone(sources))?;
        let stop = Arc::new(AtomicBool::new(false));
        let until_then = Arc::clone(&stop);
        let flooding = std::thread::spawn(move || send_until(flood, &until_then));
        let messages_per_s = self.messages_per_s();
        stop.store(true, Ordering::Relaxed);
        let sent = flooding.join().ok().context("the flood's thread has panicked")?;
        measured.flooded.push(messages_per_s?);
        measured.packets_per_s.push(sent?);
        Ok(())
    }
}

/// Returns packets a second, as it came to them.
fn send_until(mut flood: Flood, stop: &AtomicBool) -> Result<f64> {
    flood::stay_on_one_cpu()?;
    let in_step = OFFERED_PER_S * STEP.as_millis() as usize / 1_000;
    let (started, mut sent) = (Instant::now(), 0);
    let mut due = started;
    while !stop.load(Ordering::Relaxed) {
        flood.send(in_step)?;
        sent += in_step;
        due += STEP;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    Ok(sent as f64 / started.elapsed().as_secs_f64())
}

fn table(with: &Measured, without: &Measured) -> Result<Table> {
    let quiet = |name, measured: &Measured| Line::new(name, &measured.quiet);
    let flooded = |name: &str, measured: &Measured| -> Result<Line> {
        let ratio = measured.flooded.times(&measured.quiet)?;
        Line::new(name, &measured.flooded)?
            .against("times the same without the flood", &ratio, None)?
            .against("packets of the flood a second", &measured.packets_per_s, None)
    };
    let title = format!(
        "Honest mail during a SYN flood from a million denied sources, {OFFERED_PER_S} packets offered a \
         second: smtp-source, {SESSIONS} sessions, {MESSAGES} messages of {MESSAGE_BYTES} bytes, to \
         smtp-sink over veth ({ROUNDS} interleaved rounds)"
    );
    let lines = vec![
        quiet("Postern's filter, no flood", with)?,
        flooded("Postern's filter, flood", with)?,
        quiet("no filter, no flood", without)?,
        flooded("no filter, flood", without)?,
    ];
    Ok(Table { name: "mail", title, unit: "messages a second", lines })
}
