//! What the relay learns about a source, the kernel enforces, and both can say why.

use std::time::Duration;

use anyhow::{Result, ensure};
use postern_tests::{
    capture::Capture,
    dialogue::{Dialogue, connect},
    process::until,
    world::{GATEWAY, HONEST, LISTED, LISTED_V6, NEVER_ROUTE, World},
};

const CONFIG: &str = r#"
[[dnsbl]]
name = "Test List"
zone = "dnsbl.test"
ipv6 = true

[relay]
never_route = ["203.0.113.77"]

[ban]
threshold = 1
ladder = ["6s", "1h"]
"#;

/// One attempt that must be refused at RCPT; returns the reply.
fn attempt(world: &World, from: &str, to: &str, recipient: &str) -> Result<String> {
    let mut smtp = Dialogue::open(&world.out, from, to)?;
    smtp.say("EHLO sender.test")?;
    smtp.say("MAIL FROM:<spam@foreign.test>")?;
    smtp.say(&format!("RCPT TO:<{recipient}>"))
}

fn refused_then_banned(
    world: &World,
    from: &str,
    to: &str,
    recipient: &str,
    says: &str,
    rule: &str,
) -> Result<()> {
    let reply = attempt(world, from, to, recipient)?;
    ensure!(reply.starts_with("5") && reply.contains(says), "{reply}");
    world.until_verdict(from, "denied")?;
    let explained = world.cli_ok(&["explain", from])?;
    ensure!(explained.contains(rule), "explain does not name the rule {rule:?}:\n{explained}");

    let capture =
        Capture::start(&world.out, "eth0", world.path(&format!("{rule}.pcap").replace(' ', "-")))?;
    ensure!(connect(&world.out, from, to, Duration::from_millis(1500)).is_err(), "not dropped");
    let packets = capture.finish()?;
    ensure!(packets.syns(from, 25)? > 0 && packets.syn_acks(from, 25)? == 0, "a SYN-ACK went out");
    Ok(())
}

#[test]
fn a_listed_source_is_refused_with_its_reason_then_dropped_and_the_ban_ends() -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED, "127.0.0.2")?;
    world.start(CONFIG)?;
    let mx = "203.0.113.1:25";
    refused_then_banned(
        &world,
        LISTED,
        mx,
        "user@inside.test",
        "listed by Test List",
        "Test List",
    )?;
    let honest = attempt(&world, HONEST, mx, "user@inside.test")?;
    ensure!(honest.starts_with("250"), "an honest source was refused: {honest}");
    // The ban closes the MX port alone: a roaming user must still reach submission.
    connect(&world.out, LISTED, "203.0.113.1:587", Duration::from_secs(2))?;
    until("the ban to end on time", || {
        Ok(connect(&world.out, LISTED, mx, Duration::from_millis(500)).ok())
    })?;
    world.stop()
}

/// The kernel closes port 25. A listener elsewhere that does the same work holds the ban itself.
#[test]
fn a_ban_holds_on_a_listener_that_is_not_on_port_25() -> Result<()> {
    holds_elsewhere(&[], "passes the filter")?;
    holds_elsewhere(&["--filter", "userspace"], "is refused at accept")
}

fn holds_elsewhere(arguments: &[&str], verdict: &str) -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED, "127.0.0.2")?;
    let listener = format!("[[listener]]\nname = \"mx\"\naddress = [\"{GATEWAY}:2525\"]\n");
    world.start_with(&format!("{listener}{CONFIG}"), arguments)?;
    let elsewhere = format!("{GATEWAY}:2525");
    let reply = attempt(&world, LISTED, &elsewhere, "user@inside.test")?;
    ensure!(reply.contains("listed by Test List"), "{reply}");
    until("the banned source to be refused", || {
        let banner = Dialogue::open(&world.out, LISTED, &elsewhere)?.greeting;
        Ok(banner.starts_with("554").then_some(()))
    })?;
    let explained = world.cli_ok(&["explain", LISTED, "--port", "2525"])?;
    for part in ["lists on mx", "as on port 25", verdict] {
        ensure!(explained.contains(part), "does not say {part:?}: {explained}");
    }
    let honest = attempt(&world, HONEST, &elsewhere, "user@inside.test")?;
    ensure!(honest.starts_with("250"), "{honest}");
    world.stop()
}

#[test]
fn the_session_that_earned_the_ban_ends_with_its_reason() -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED, "127.0.0.2")?;
    world.start(CONFIG)?;
    let mut smtp = Dialogue::open(&world.out, LISTED, "203.0.113.1:25")?;
    smtp.say("EHLO sender.test")?;
    smtp.say("MAIL FROM:<spam@foreign.test>")?;
    let reply = smtp.say("RCPT TO:<user@inside.test>")?;
    ensure!(reply.contains("listed by Test List"), "{reply}");
    until("the place to be free again", || {
        Ok((world.json(&["status"])?["relay"]["sessions"] == 0).then_some(()))
    })?;
    world.stop()
}

#[test]
fn a_listed_v6_source_loses_its_whole_64() -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED_V6, "127.0.0.2")?;
    world.start(CONFIG)?;
    let mx = "[2001:db8:1::1]:25";
    refused_then_banned(
        &world,
        LISTED_V6,
        mx,
        "user@inside.test",
        "listed by Test List",
        "Test List",
    )?;
    let list = world.cli_ok(&["deny", "list"])?;
    ensure!(list.contains("2001:db8:1:66::/64"), "{list}");
    world.stop()
}

#[test]
fn a_never_route_source_that_relays_is_refused_then_dropped() -> Result<()> {
    let mut world = World::new()?;
    world.start(CONFIG)?;
    let mx = "203.0.113.1:25";
    refused_then_banned(
        &world,
        NEVER_ROUTE,
        mx,
        "user@elsewhere.test",
        "5.7.1 Relaying is prohibited",
        "never-route",
    )?;
    world.stop()
}

#[test]
fn postmaster_stays_reachable_for_a_listed_source() -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED, "127.0.0.2")?;
    world.start(CONFIG)?;
    let reply = attempt(&world, LISTED, "203.0.113.1:25", "postmaster@inside.test")?;
    ensure!(reply.starts_with("250"), "{reply}");
    world.stop()
}

#[test]
fn three_refusals_ban_by_default_and_two_do_not() -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED, "127.0.0.2")?;
    world.start("[[dnsbl]]\nname = \"Test List\"\nzone = \"dnsbl.test\"\n")?;
    let mx = "203.0.113.1:25";
    for _ in 0..2 {
        attempt(&world, LISTED, mx, "user@inside.test")?;
    }
    ensure!(!world.cli_ok(&["deny", "list"])?.contains(LISTED), "banned too early");
    attempt(&world, LISTED, mx, "user@inside.test")?;
    until("the ban", || Ok(world.cli_ok(&["deny", "list"])?.contains(LISTED).then_some(())))?;
    world.cli_ok(&["deny", "del", LISTED])?;
    connect(&world.out, LISTED, mx, Duration::from_secs(2))?;
    world.stop()
}

#[test]
fn an_answer_that_is_an_error_is_no_opinion() -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED, "127.255.255.254")?;
    world.start(CONFIG)?;
    let reply = attempt(&world, LISTED, "203.0.113.1:25", "user@inside.test")?;
    ensure!(reply.starts_with("250"), "{reply}");
    world.stop()
}

#[test]
fn explain_asks_the_block_lists_only_for_a_listener_that_does() -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED, "127.0.0.2")?;
    world.start(CONFIG)?;
    let mx = world.cli_ok(&["explain", LISTED])?;
    ensure!(mx.contains("dnsbl Test List") && mx.contains("127.0.0.2"), "{mx}");
    let submission = world.cli_ok(&["explain", LISTED, "--port", "587"])?;
    ensure!(!submission.contains("dnsbl"), "{submission}");
    world.stop()
}

#[test]
fn a_listed_partner_on_the_allow_list_is_heard_also_where_nothing_is_denied() -> Result<()> {
    let mut world = World::new()?;
    world.dns.list(&world.inside, LISTED, "127.0.0.2")?;
    world.start(CONFIG)?;
    world.cli_ok(&["allow", "add", LISTED])?;
    let reply = attempt(&world, LISTED, "203.0.113.1:25", "user@inside.test")?;
    ensure!(reply.starts_with("250"), "a partner was refused: {reply}");
    world.stop()
}
