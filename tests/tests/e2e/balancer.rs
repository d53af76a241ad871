//! haproxy in front of the gateway: the source is the client that it names, for the trace, for what
//! may be relayed, and inside TLS.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use postern_tests::{
    dialogue::{Dialogue, connect},
    process::{Process, output, until},
    recorder::Recorder,
    world::{FEEDS, GATEWAY, HONEST, LISTED, OTHER, World},
};

/// Where haproxy listens, by the version of the header that it writes. It is at the router's place.
const BALANCER: &str = FEEDS;
const VERSIONS: [(u16, &str); 2] = [(25, "send-proxy"), (2525, "send-proxy-v2")];

/// A running haproxy, which also checks now and then whether the gateway lives.
struct Haproxy {
    _process: Process,
    statistics: PathBuf,
}

impl Haproxy {
    fn start(world: &World) -> Result<Self> {
        let statistics = world.path("haproxy.sock");
        let mut config = format!(
            "global\n stats socket {}\n\
             defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n",
            statistics.display()
        );
        for (port, header) in VERSIONS {
            config += &format!(
                "listen {header}\n bind {BALANCER}:{port}\n option smtpchk EHLO balancer.test\n \
                 server gateway {GATEWAY}:25 {header} source {BALANCER} check inter 100\n"
            );
        }
        let file = world.path("haproxy.cfg");
        fs::write(&file, config)?;
        let process = Process::start(world.out.command("haproxy").args(["-db", "-f"]).arg(file))?;
        let haproxy = Self { _process: process, statistics };
        until("haproxy to listen", || Ok(Path::new(&haproxy.statistics).exists().then_some(())))?;
        Ok(haproxy)
    }

    /// Waits until each version's checks have gone through, headers without a client included.
    fn until_checked(&self) -> Result<()> {
        until("haproxy's checks to succeed", || {
            // Made before it is listened on.
            let Ok(mut socket) = UnixStream::connect(&self.statistics) else { return Ok(None) };
            socket.write_all(b"show stat\n")?;
            socket.shutdown(Shutdown::Write)?;
            let mut table = String::new();
            socket.read_to_string(&mut table)?;
            let good =
                table.lines().filter(|row| row.contains(",gateway,") && row.contains("L7OK"));
            Ok((good.count() == VERSIONS.len()).then_some(()))
        })
    }
}

#[test]
fn behind_haproxy_the_source_is_the_client_that_it_names() -> Result<()> {
    let mut world = World::new()?;
    let inside = Recorder::start(&world.inside, "10.0.0.25:25".parse()?)?;
    world.start(&format!(
        "[[listener]]\nname = \"mx\"\naddress = [\"{GATEWAY}:25\"]\nrelay_for = [\"{HONEST}\"]\n\
         proxy_protocol = [\"{BALANCER}\"]\n"
    ))?;
    let haproxy = Haproxy::start(&world)?;
    haproxy.until_checked()?;
    for (number, (port, header)) in VERSIONS.into_iter().enumerate() {
        let balancer = format!("{BALANCER}:{port}");
        for (client, reply) in [(HONEST, "250"), (OTHER, "550 5.7.1")] {
            let said = relay_attempt(&mut Dialogue::open(&world.out, client, &balancer)?)?;
            ensure!(said.starts_with(reply), "{header}, {client} relaying: {said}");
        }
        let mut swaks = world.out.command("swaks");
        swaks.args(["--server", BALANCER, "--port", &port.to_string(), "--tls"]);
        swaks.args(["--local-interface", OTHER, "--ehlo", "client.test"]);
        swaks.args(["--from", "a@foreign.test", "--to", "bob@inside.test"]);
        output(swaks.args(["--body", "line one\n.line two"]))?.success()?;
        let arrived = inside.wait_for(number + 1)?.remove(number);
        let (fields, body) = arrived.split();
        let received = fields.split("\r\nDate").next().context("no field")?;
        ensure!(
            received.contains(&format!("[{OTHER}]")) && received.contains("with ESMTPS"),
            "{header}: {received}"
        );
        ensure!(!received.contains(BALANCER), "{header}: {received}");
        ensure!(body.starts_with(b"line one\r\n.line two\r\n"), "{}", body.escape_ascii());
    }
    // From anybody else the header is what it looks like: a bad command.
    let mut smtp = Dialogue::open(&world.out, HONEST, &format!("{GATEWAY}:25"))?;
    let reply = smtp.say(&format!("PROXY TCP4 {OTHER} {GATEWAY} 1 25"))?;
    ensure!(reply.starts_with("500"), "{reply}");
    drop(haproxy);
    world.stop()
}

/// Asks for mail to be relayed, which is granted to one address alone; returns the reply.
fn relay_attempt(smtp: &mut Dialogue) -> Result<String> {
    smtp.say("EHLO client.test")?;
    smtp.say("MAIL FROM:<a@foreign.test>")?;
    smtp.say("RCPT TO:<user@elsewhere.test>")
}

/// The kernel sees the balancer's address alone, so behind it the relay holds the list itself; who
/// comes past the balancer does not get that far.
#[test]
fn a_client_that_a_balancer_names_is_banned_and_the_balancer_is_not() -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED, "127.0.0.2")?;
    world.start(&format!(
        "[[listener]]\nname = \"mx\"\naddress = [\"{GATEWAY}:25\"]\nproxy_protocol = [\"{BALANCER}\"]\n\
         [[dnsbl]]\nname = \"Test List\"\nzone = \"dnsbl.test\"\n[ban]\nthreshold = 1\n"
    ))?;
    let haproxy = Haproxy::start(&world)?;
    haproxy.until_checked()?;
    let asked = |mut smtp: Dialogue| -> Result<String> {
        if smtp.greeting.starts_with('2') {
            smtp.say("EHLO client.test")?;
            smtp.say("MAIL FROM:<a@foreign.test>")?;
            return smtp.say("RCPT TO:<user@inside.test>");
        }
        Ok(smtp.greeting)
    };
    let to_user =
        |client: &str| asked(Dialogue::open(&world.out, client, &format!("{BALANCER}:2525"))?);
    let reply = to_user(LISTED)?;
    ensure!(reply.starts_with('5') && reply.contains("listed by Test List"), "{reply}");
    world.until_verdict(LISTED, "denied")?;
    until("the relay to refuse the banned client behind the balancer", || {
        Ok(to_user(LISTED)?.starts_with("554").then_some(()))
    })?;
    // What the balancer calls the port is its own affair: the listener takes mail from strangers.
    for port in [25, 587, 2525] {
        let header = format!("PROXY TCP4 {LISTED} {GATEWAY} 40000 {port}\r\n");
        let to = format!("{GATEWAY}:25");
        let reply = asked(Dialogue::behind(&world.out, BALANCER, &to, header.as_bytes())?)?;
        ensure!(reply.starts_with("554"), "{port}: {reply}");
    }
    // Each is counted as a packet is.
    let rows = world.json(&["deny", "list"])?["rows"].clone();
    ensure!(rows[0]["hits"].as_u64() >= Some(4) && rows[0]["last_hit"].is_string(), "{rows}");
    let past = connect(&world.out, LISTED, &format!("{GATEWAY}:25"), Duration::from_millis(1500));
    ensure!(past.is_err(), "a SYN of {LISTED} was answered");
    let reply = to_user(HONEST)?;
    ensure!(reply.starts_with("250"), "{reply}");
    let denied = world.cli_ok(&["deny", "list"])?;
    ensure!(denied.contains(LISTED) && !denied.contains(BALANCER), "{denied}");
    drop(haproxy);
    world.stop()
}
