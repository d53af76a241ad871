//! Nobody is locked out by mistake, nothing is dropped that was only to be observed, and what the
//! machine needs lives on under a denial of the whole world.

use std::{
    net::{IpAddr, TcpListener, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use postern::control::{
    api::{BanOutcome, BanRequest},
    client::Client,
};
use postern_tests::{
    dialogue::connect,
    process::{PATIENCE, Process, output, until},
    world::{GATEWAY, GATEWAY_V6, HONEST, HONEST_V6, OTHER, OTHER_V6, World},
};
use relay_common::entry::{Reason, Scope};

const MX: &str = "203.0.113.1:25";
const MX_V6: &str = "[2001:db8:1::1]:25";
/// A SYN that is not answered is sent again after one second; this shows at least one repetition.
const UNANSWERED: Duration = Duration::from_millis(1500);

fn reaches(world: &World, from: &str, to: &str) -> bool {
    connect(&world.out, from, to, UNANSWERED).is_ok()
}

#[test]
fn what_is_only_observed_is_counted_and_comes_in() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    world.cli_ok(&["deny", "add", OTHER, OTHER_V6, "--observe"])?;
    ensure!(reaches(&world, OTHER, MX) && reaches(&world, OTHER_V6, MX_V6), "dropped");
    let told = world.cli_ok(&["explain", OTHER])?;
    ensure!(told.contains("would be dropped, but for being observed only"), "{told}");
    let stats = world.json(&["stats"])?;
    let observed = stats["edge"]["packets"]["passed, observed only"].as_u64();
    ensure!(observed > Some(0) && stats["edge"]["packets"]["dropped"] == 0, "{stats}");
    world.cli_ok(&["deny", "add", OTHER])?;
    ensure!(!reaches(&world, OTHER, MX), "no longer observed, and not dropped");
    world.stop()?;

    // The whole filter: what was denied in earnest comes in, too, kernel filter or not.
    for arguments in [&[][..], &["--filter", "userspace"]] {
        world.start_with("[filter]\nobserve = true\n", arguments)?;
        let greeting = postern_tests::dialogue::Dialogue::open(&world.out, OTHER, MX)?.greeting;
        ensure!(greeting.starts_with("220 "), "{arguments:?}: {greeting}");
        let status = world.cli_ok(&["status"])?;
        ensure!(status.contains("only observing: nothing is dropped"), "{status}");
        world.stop()?;
    }
    Ok(())
}

/// How many of so many connections, all begun at once, are set up within a moment; and how long
/// that was.
fn set_up(world: &World, from: &str, to: &str, count: usize) -> Result<(usize, Duration)> {
    use socket2::{Domain, Socket, Type};
    let (source, target): (IpAddr, std::net::SocketAddr) = (from.parse()?, to.parse()?);
    world.out.enter(|| -> Result<_> {
        let started = std::time::Instant::now();
        let mut sockets = Vec::new();
        for _ in 0..count {
            let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&std::net::SocketAddr::new(source, 0).into())?;
            let _in_progress = socket.connect(&target.into());
            sockets.push(socket);
        }
        // The last of them: what follows it on the wire comes too late to matter.
        let mut up = 0;
        while started.elapsed() < Duration::from_millis(700) {
            up = sockets.iter().filter(|socket| socket.peer_addr().is_ok()).count();
            if up == count {
                break;
            }
        }
        Ok((up, started.elapsed()))
    })?
}

#[test]
fn a_flood_of_connections_is_thinned_to_the_rate() -> Result<()> {
    let mut world = World::new()?;
    world.start("[filter]\nsyn_rate = 10\nsyn_burst = 10\nsyn_free = 0\n")?;
    let other_port = world.gw.enter(|| TcpListener::bind((GATEWAY, 8025)))??;
    for (from, mx, honest) in [(OTHER, MX, HONEST), (OTHER_V6, MX_V6, HONEST_V6)] {
        let (up, within) = set_up(&world, from, mx, 60)?;
        let most = 10 + 10 * (within.as_millis() as usize).div_ceil(1000);
        ensure!((10..=most).contains(&up), "{up} of 60 within {within:?}");
        ensure!(set_up(&world, honest, mx, 5)?.0 == 5, "another source was limited");
    }
    let limited = world.json(&["stats"])?["edge"]["packets"]["dropped, limited"].as_u64();
    ensure!(limited >= Some(80), "{limited:?}");
    ensure!(world.cli_ok(&["status"])?.contains("10 connections a second"));
    // Neither other ports, although they are looked up, nor who is allowed.
    world.cli_ok(&["deny", "add", "192.0.2.1", "--scope", "all"])?;
    ensure!(set_up(&world, OTHER, "203.0.113.1:8025", 60)?.0 == 60, "another port was limited");
    world.cli_ok(&["allow", "add", OTHER])?;
    ensure!(set_up(&world, OTHER, MX, 60)?.0 == 60, "an allowed source was limited");
    world.stop()?;
    world.start("[filter]\nsyn_rate = 10\nsyn_burst = 10\nsyn_free = 100000\n")?;
    world.cli_ok(&["allow", "del", OTHER])?;
    ensure!(set_up(&world, OTHER, MX, 60)?.0 == 60, "limited while all is quiet");
    drop(other_port);
    world.stop()
}

#[test]
fn a_denial_that_nobody_confirms_ends_with_the_edge_stopped_and_a_confirmed_one_stays() -> Result<()>
{
    let mut world = World::new()?;
    world.start("")?;
    let add = ["deny", "add", OTHER, "--scope", "all", "--confirm-within", "5s"];
    let said = world.cli_ok(&add)?;
    ensure!(said.contains("unless you confirm it: postern deny confirm 1"), "{said}");
    let edge = world.daemon_pid("edge")?;
    kill(edge, Signal::SIGSTOP)?;
    ensure!(!reaches(&world, OTHER, MX), "not dropped");
    until("the denial to end by itself", || Ok(reaches(&world, OTHER, MX).then_some(())))?;
    kill(edge, Signal::SIGCONT)?;
    until("the log to say so", || Ok(world.log().contains("not confirmed in time").then_some(())))?;
    ensure!(world.cli_ok(&["deny", "list"])?.contains("is empty"));
    let late = world.cli(&["deny", "confirm", "1"])?;
    ensure!(late.status.code() == Some(3) && late.stderr.contains("ended by itself"), "{late:?}");

    let until_s = world.json(&add)?["pending"]["until"].to_string();
    ensure!(world.cli_ok(&["deny", "pending"])?.contains("cli"));
    world.cli_ok(&["deny", "confirm"])?;
    until("the deadline to pass", || {
        let now = world.json(&["status"])?["edge"]["time"].to_string();
        Ok((now > until_s).then_some(()))
    })?;
    ensure!(!reaches(&world, OTHER, MX), "a confirmed denial ended");
    world.stop()
}

#[test]
fn whoever_sshd_serves_is_not_cut_off_by_mistake() -> Result<()> {
    let mut world = World::new()?;
    let listener = world.out.enter(|| TcpListener::bind((OTHER, 7022)))??;
    // A program of that name, with a connection; which of the two began it does not matter.
    let sshd = world.path("sshd");
    std::fs::copy("/bin/bash", &sshd)?;
    let script = format!("exec 3<>/dev/tcp/{OTHER}/7022; read -r -u 3");
    let mut command = world.gw.command(&sshd.display().to_string());
    let sshd = Process::start(command.args(["-c", &script]))?;
    let connection = listener.accept()?;
    world.start("")?;
    let refused = world.cli(&["deny", "add", "203.0.113.96/28", "--scope", "tcp"])?;
    let why = format!("holds {OTHER}, from which somebody is logged in over SSH");
    ensure!(refused.status.code() == Some(1) && refused.stderr.contains(&why), "{refused:?}");
    world.cli_ok(&["deny", "add", OTHER])?;
    world.cli_ok(&["deny", "add", OTHER, "--scope", "tcp", "--force"])?;
    drop((connection, sshd));
    world.stop()
}

#[test]
fn a_denial_of_everybody_for_mail_leaves_ssh_arp_ndp_and_dns_alive() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    let bind = |address: &str| world.gw.enter(|| TcpListener::bind((address, 22)));
    let ssh = (bind(GATEWAY)??, bind(GATEWAY_V6)??);
    for everybody in ["0.0.0.0/0", "::/0"] {
        let refused = world.cli(&["deny", "add", everybody])?;
        ensure!(refused.status.code() == Some(1), "it holds the machine itself: {refused:?}");
        world.cli_ok(&["deny", "add", everybody, "--force"])?;
    }
    // Nobody knows his neighbours any more: ARP and neighbour discovery have to work.
    for ns in [&world.gw, &world.out] {
        ns.run("ip", &["neigh", "flush", "all"])?;
    }
    for (from, gateway, mx) in [(HONEST, GATEWAY, MX), (HONEST_V6, GATEWAY_V6, MX_V6)] {
        output(world.out.command("ping").args(["-c1", "-W5", "-I", from, gateway]))?.success()?;
        let address: IpAddr = gateway.parse()?;
        let ssh = std::net::SocketAddr::new(address, 22).to_string();
        ensure!(reaches(&world, from, &ssh), "SSH is closed to {from}");
        ensure!(!reaches(&world, from, mx), "mail is open to {from}");
        let neighbours = world.gw.run("ip", &["neigh", "show", "dev", "eth0", from])?;
        ensure!(neighbours.contains("lladdr"), "{neighbours}");

        // A question from the machine, and the answer to it.
        let server = world.out.enter(|| UdpSocket::bind((from, 53)))??;
        let client = world.gw.enter(|| UdpSocket::bind((gateway, 0)))??;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(PATIENCE))?;
        }
        client.send_to(b"?", (from, 53))?;
        let mut byte = [0];
        let (_, asker) = server.recv_from(&mut byte).context("the question")?;
        server.send_to(b"!", asker)?;
        client.recv_from(&mut byte).context("the answer")?;
        ensure!(&byte == b"!");
    }
    let dropped = world.json(&["stats"])?["edge"]["packets"]["dropped"].as_u64();
    ensure!(dropped > Some(0), "{dropped:?}");
    drop(ssh);
    world.stop()
}

#[test]
fn a_full_list_refuses_changes_nothing_and_is_seen() -> Result<()> {
    let mut world = World::new()?;
    world.start("[filter]\nmax_entries = 3\n")?;
    world.cli_ok(&["deny", "add", OTHER, "198.51.100.1"])?;
    let refused = world.cli(&["deny", "add", "198.51.100.2", "198.51.100.3"])?;
    ensure!(
        refused.status.code() == Some(1) && refused.stderr.contains("room for 3"),
        "{refused:?}"
    );
    ensure!(world.cli_ok(&["deny", "export"])?.lines().count() == 2);
    ensure!(!reaches(&world, OTHER, MX) && reaches(&world, HONEST, MX));
    ensure!(world.json(&["status"])?["edge"]["health"]["list_full"] == 1);
    world.stop()?;

    world.start("[filter]\nmax_entries = 3\n[ban]\nmake_room = true\nladder = [\"1h\"]\n")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let edge = Client::edge(&world.socket_dir());
    for address in ["198.51.100.8", HONEST] {
        let request = BanRequest {
            address: address.parse()?,
            scope: Scope::MX,
            reason: Reason::Dnsbl,
            rule: "test".into(),
            evidence: String::new(),
        };
        let answer = runtime.block_on(edge.ban(&request))?;
        ensure!(answer.outcome == BanOutcome::Banned, "{answer:?}");
    }
    ensure!(!reaches(&world, HONEST, MX) && !reaches(&world, OTHER, MX));
    let list = world.cli_ok(&["deny", "list"])?;
    ensure!(!list.contains("198.51.100.8") && list.contains("198.51.100.1"), "{list}");
    ensure!(world.json(&["status"])?["edge"]["health"]["bans_evicted"] == 1);
    world.stop()
}
