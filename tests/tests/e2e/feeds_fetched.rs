//! A feed from the network: fetched over https by the relay, enforced in the kernel by the edge.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern_tests::{
    dialogue::{Dialogue, connect},
    https::HttpsServer,
    process::until,
    world::{FEEDS, HONEST, LISTED, LISTED_V6, OTHER, World},
};
use serde_json::Value;

const MX: &str = "203.0.113.1:25";
const MX_V6: &str = "[2001:db8:1::1]:25";
const UNANSWERED: Duration = Duration::from_millis(1500);

fn config(https: &HttpsServer) -> String {
    format!(
        "[[feed]]\nname = \"drop\"\nsource = \"https://feeds.test/drop.txt\"\nca_file = {:?}\n\
         max_entries = 1000\n",
        https.ca_file().display().to_string()
    )
}

/// What is known of the feed.
fn feed(world: &World) -> Result<Value> {
    world.json(&["feed", "show", "drop"])
}

fn is_dropped(world: &World, from: &str, to: &str) -> bool {
    connect(&world.out, from, to, UNANSWERED).is_err()
}

fn until_dropped(world: &World, from: &str) -> Result<()> {
    world.until_verdict(from, "denied")?;
    ensure!(is_dropped(world, from, MX), "{from} got through");
    Ok(())
}

/// Asks for a refresh, and waits until one has ended; returns what is then known of the feed.
fn refresh(world: &World) -> Result<Value> {
    let before = feed(world)?["attempts"].as_u64().context("no attempts")?;
    world.cli_ok(&["feed", "refresh", "drop"])?;
    until("the refresh", || {
        let feed = feed(world)?;
        Ok((feed["attempts"].as_u64() > Some(before)).then_some(feed))
    })
}

fn fails_because(world: &World, why: &str) -> Result<()> {
    let feed = refresh(world)?;
    let text = feed["refusal"]["why"].as_str().unwrap_or_default();
    ensure!(text.contains(why), "not {why:?}: {feed}");
    ensure!(feed["state"] == "failing", "{feed}");
    let list = world.cli_ok(&["feed", "list"])?;
    ensure!(list.contains("failing"), "{list}");
    ensure!(is_dropped(world, LISTED, MX), "the old list is not in force");
    ensure!(!is_dropped(world, OTHER, MX), "part of the new list is in force");
    Ok(())
}

#[test]
fn a_feed_from_the_network_is_enforced_and_outlives_its_publishers_accidents() -> Result<()> {
    let mut world = World::new()?;
    let folder = world.path("feeds");
    let https = HttpsServer::start(&world.out, FEEDS, "feeds.test", folder.clone())?;
    https.publish("drop.txt", &format!("# test\n{LISTED}\n2001:db8:1:66::/64\n"))?;
    world.start(&config(&https))?;
    until_dropped(&world, LISTED)?;
    ensure!(is_dropped(&world, LISTED_V6, MX_V6), "{LISTED_V6} got through");
    ensure!(!is_dropped(&world, OTHER, MX), "{OTHER} is on no list");
    ensure!(Dialogue::open(&world.out, HONEST, MX)?.greeting.starts_with("220 "));

    // Asked again, the server says that nothing has changed.
    let unchanged = refresh(&world)?;
    ensure!(unchanged["state"] == "good" && unchanged["refusals"] == 0, "{unchanged}");
    ensure!(https.requests() == ["/drop.txt 200", "/drop.txt 304"], "{:?}", https.requests());

    // What is cut off is refused, what cannot be had changes nothing, and the status says why.
    https.publish("drop.txt", &format!("{OTHER}\n{LISTED}\n198.51.100.0/24\n"))?;
    https.cut_off(true)?;
    fails_because(&world, "it was cut off after")?;
    https.cut_off(false)?;
    https.stop()?;
    fails_because(&world, "Connection refused")?;

    let https = HttpsServer::start(&world.out, FEEDS, "feeds.test", folder)?;
    let good = refresh(&world)?;
    ensure!(good["state"] == "good", "{good}");
    until_dropped(&world, OTHER)?;
    ensure!(is_dropped(&world, LISTED, MX), "{LISTED} is on the new list, too");
    world.stop()?;
    https.stop()
}

#[test]
fn a_server_that_nobody_vouches_for_is_not_believed() -> Result<()> {
    let mut world = World::new()?;
    let https = HttpsServer::start(&world.out, FEEDS, "feeds.test", world.path("feeds"))?;
    https.publish("drop.txt", LISTED)?;
    let own = HttpsServer::start(&world.inside, "10.0.0.25", "feeds.test", world.path("own"))?;
    world.start(&config(&own))?;
    let feed = until("the first attempt", || {
        let feed = feed(&world)?;
        Ok((feed["attempts"].as_u64() > Some(0)).then_some(feed))
    })?;
    let why = feed["refusal"]["why"].as_str().unwrap_or_default();
    ensure!(why.contains("TLS: invalid peer certificate"), "{feed}");
    ensure!(https.requests().is_empty(), "{:?}", https.requests());
    ensure!(!is_dropped(&world, LISTED, MX));
    world.stop()
}
