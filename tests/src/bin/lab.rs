//! The story of Postern in miniature, told as it happens: `cargo xtask lab`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use postern_tests::{
    capture::{Capture, Packets},
    dialogue::{Dialogue, connect},
    netns::Netns,
    process::{Process, output, until},
    world::{self, GATEWAY, HONEST, LISTED, NEVER_ROUTE, OTHER, World},
};
use tokio::signal::unix::{SignalKind, signal};

/// Builds a gateway, an internet and an inside in network namespaces, and shows what Postern does
/// with an honest sender, a listed one and one that may never relay.
#[derive(Debug, Parser)]
struct Arguments {
    /// Leave it all running, to look around, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

const MX: &str = "203.0.113.1:25";

const CONFIG: &str = r#"
[[dnsbl]]
name = "Lab Block List"
zone = "dnsbl.test"

[relay]
never_route = ["203.0.113.77"]

# One refusal is enough here; three within ten minutes are the default.
[ban]
threshold = 1

[queue]
retry = ["1s"]
"#;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let stopped = Arc::new(AtomicBool::new(false));
    let stop_seen = Arc::clone(&stopped);
    let signals =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut terminate = signals.block_on(async { signal(SignalKind::terminate()) })?;
    let mut interrupt = signals.block_on(async { signal(SignalKind::interrupt()) })?;
    signals.spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop_seen.store(true, Ordering::SeqCst);
    });
    let lab = Lab::build(stopped)?;
    let outcome = lab.story();
    if outcome.is_ok() && arguments.keep {
        lab.wait_for_the_end();
    }
    say("Taking the lab away: namespaces, daemons, pinned maps and files.");
    drop(lab);
    outcome
}

struct Lab {
    // In the order in which they have to go.
    _sink: Process,
    world: World,
    mailbox: PathBuf,
    stopped: Arc<AtomicBool>,
}

fn say(text: &str) {
    println!("\n== {text}");
}

fn show(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

impl Lab {
    fn build(stopped: Arc<AtomicBool>) -> Result<Self> {
        say("Building: an internet, a gateway with Postern, an inside with a mail host and DNS.");
        let mut world = World::new()?;
        show(&format!(
            "gateway      {GATEWAY} (eth0, to the internet) and 10.0.0.1 (eth1, to the inside)\n\
             honest       {HONEST}\n\
             listed       {LISTED}, on the block list dnsbl.test (NSD at {})\n\
             never-route  {NEVER_ROUTE}\n\
             stranger     {OTHER}\n\
             inside host  {} for the domain inside.test (smtp-sink)",
            world::DNS,
            world::INSIDE_HOST,
        ));
        world.dns.list(&world.inside, LISTED, "127.0.0.2")?;
        let mailbox = world.path("mailbox");
        fs::create_dir(&mailbox)?;
        fs::set_permissions(&mailbox, fs::Permissions::from_mode(0o777))?;
        let mut sink = world.inside.command("smtp-sink");
        sink.args(["-u", "nobody", "-d"]).arg(mailbox.join("%H%M%S."));
        let sink = Process::start(sink.args([&format!("{}:25", world::INSIDE_HOST), "10"]))?;
        world.start(CONFIG)?;
        show(&world.log());
        Ok(Self { _sink: sink, world, mailbox, stopped })
    }

    fn story(&self) -> Result<()> {
        self.honest_sender()?;
        self.unless_stopped()?;
        let what = "A stranger tries whether we are an open relay.";
        let prober = self.learn(what, OTHER, "victim%elsewhere.test@inside.test")?;
        self.unless_stopped()?;
        let what = "A source on the block list writes to us.";
        let listed = self.learn(what, LISTED, "user@inside.test")?;
        self.unless_stopped()?;
        let what = "A source that may never relay tries to.";
        let never_route = self.learn(what, NEVER_ROUTE, "someone@elsewhere.test")?;
        self.unless_stopped()?;
        self.evidence(&[(OTHER, prober), (LISTED, listed), (NEVER_ROUTE, never_route)])
    }

    fn unless_stopped(&self) -> Result<()> {
        if self.stopped.load(Ordering::SeqCst) { bail!("stopped by a signal") } else { Ok(()) }
    }

    fn honest_sender(&self) -> Result<()> {
        say("An honest sender writes to user@inside.test, over TLS.");
        let mut swaks = self.world.out.command("swaks");
        swaks.args(["--server", GATEWAY, "--local-interface", HONEST, "--ehlo", "honest.test"]);
        swaks.args(["--from", "friend@foreign.test", "--to", "user@inside.test", "--tls"]);
        let sent = output(&mut swaks)?.success()?;
        for line in sent.stdout.lines().filter(|line| line.contains("queued as")) {
            show(line);
        }
        let arrived = until("the message to arrive inside", || {
            let file = fs::read_dir(&self.mailbox)?.next();
            let text = file.map(|file| fs::read_to_string(file?.path())).transpose()?;
            Ok(text.filter(|text| text.contains("X-Mailer: swaks")))
        })?;
        show("It arrived at the inside host with this trace:");
        let trace = arrived.lines().skip_while(|line| !line.starts_with("Received: from honest"));
        show(&trace.take(3).collect::<Vec<_>>().join("\n"));
        Ok(())
    }

    /// MAIL and RCPT from a source; the reply to RCPT.
    fn attempt(&self, from: &str, recipient: &str) -> Result<String> {
        let mut smtp = Dialogue::open(&self.world.out, from, MX)?;
        smtp.say("EHLO sender.test")?;
        smtp.say("MAIL FROM:<sender@foreign.test>")?;
        smtp.say(&format!("RCPT TO:<{recipient}>"))
    }

    /// A refusal, the ban that follows, and a capture of what happens to the next connection.
    fn learn(&self, what: &str, source: &str, recipient: &str) -> Result<Packets> {
        say(what);
        let reply = self.attempt(source, recipient)?;
        ensure!(reply.starts_with('5'), "{reply}");
        show(&reply);
        self.world.until_verdict(source, "denied")?;
        let explained = self.world.cli_ok(&["explain", source])?;
        show(&format!("$ postern explain {source}\n{explained}"));
        let file = self.world.path(&format!("{source}.pcap"));
        let capture = Capture::start(&self.world.out, "eth0", file)?;
        let again = connect(&self.world.out, source, MX, Duration::from_millis(3500));
        ensure!(again.is_err(), "the banned source was let in");
        show("It calls again: no answer within 3.5 s.");
        capture.finish()
    }

    fn evidence(&self, captures: &[(&str, Packets)]) -> Result<()> {
        say("The evidence.");
        for (source, packets) in captures {
            let (syns, answers) = (packets.syns(source, 25)?, packets.syn_acks(source, 25)?);
            show(&format!("{source}: {syns} SYN to port 25 on the wire, {answers} SYN-ACK back"));
            ensure!(syns > 0 && answers == 0, "the kernel answered a banned source");
        }
        for command in [&["deny", "list"][..], &["stats"]] {
            show(&format!("$ postern {}", command.join(" ")));
            show(&self.world.cli_ok(command)?);
        }
        show("The honest sender is still welcome:");
        show(&Dialogue::open(&self.world.out, HONEST, MX)?.greeting);
        Ok(())
    }

    fn wait_for_the_end(&self) {
        let inside = |ns: &Netns| format!("nsenter --net={}", ns.path().display());
        say("The lab stays until Ctrl-C. Look around, as root:");
        show(&format!(
            "a shell on the gateway   {gw} bash\n\
             a shell on the internet  {out} bash\n\
             ask Postern              {postern} --socket-dir {sockets} status\n\
             knock as a sender        {out} swaks --server {GATEWAY} --local-interface {HONEST} --to user@inside.test\n\
             the log                  tail -f {log}",
            gw = inside(&self.world.gw),
            out = inside(&self.world.out),
            postern = world::postern_binary().display(),
            sockets = self.world.socket_dir().display(),
            log = self.world.path("log").display(),
        ));
        while !self.stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
