//! haproxy in front of the gateway: the source is the client that it names, for the trace, for what
//! may be relayed, and inside TLS.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use postern_tests::{
    dialogue::Dialogue,
    process::{Process, output, until},
    recorder::Recorder,
    world::{FEEDS, GATEWAY, HONEST, OTHER, World},
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
            let mut smtp = Dialogue::open(&world.out, client, &balancer)?;
            smtp.say("EHLO client.test")?;
            smtp.say("MAIL FROM:<a@foreign.test>")?;
            let said = smtp.say("RCPT TO:<user@elsewhere.test>")?;
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
