//! Long lists, and what whoever loads them gets to see.

use std::{fmt::Write as _, fs};

use anyhow::{Context, Result, ensure};
use postern_tests::{pty::Pty, world::World};

const ENTRIES: u32 = 300_000;

fn addresses(count: u32) -> Result<String> {
    let mut text = String::new();
    // With gaps, so that a feed does not make one prefix of them.
    for number in (0..count).map(|number| number * 2) {
        let [_, a, b, c] = number.to_be_bytes();
        writeln!(text, "20.{a}.{b}.{c}")?;
    }
    Ok(text)
}

/// All that a command shows at a terminal, until it has ended well.
fn shown_at_a_terminal(world: &World, arguments: &[&str]) -> Result<String> {
    let mut command = world.postern(&["--socket-dir"]);
    command.arg(world.socket_dir()).args(arguments);
    let mut pty = Pty::start(&command, 80, 24)?;
    pty.until_shown("\n")?;
    ensure!(pty.wait()?.success(), "{}", pty.shown());
    Ok(pty.shown())
}

/// What it said is wiped away before the answer stands there.
fn is_wiped(shown: &str, answer: &str) -> Result<()> {
    let (before, _) = shown.split_once(answer).with_context(|| format!("no answer: {shown:?}"))?;
    ensure!(before.ends_with(" \r"), "{shown:?}");
    Ok(())
}

#[test]
fn a_long_import_says_at_a_terminal_how_far_it_is_and_nowhere_else() -> Result<()> {
    let mut world = World::new()?;
    world.start("[filter]\nmax_entries = 400000\n")?;
    let file = world.path("long.txt");
    fs::write(&file, addresses(ENTRIES)?)?;
    let file = file.display().to_string();
    let shown = shown_at_a_terminal(&world, &["deny", "import", &file])?;
    ensure!(shown.contains("deny list: writing ") && shown.contains(" of 300000"), "{shown:?}");
    is_wiped(&shown, "deny list: added 300000 entries")?;
    let piped = world.cli(&["deny", "import", &file])?.success()?;
    ensure!(piped.stderr.is_empty() && piped.stdout.contains("nothing changed"), "{piped:?}");
    world.stop()
}

#[test]
fn a_feed_says_at_a_terminal_how_far_it_is_and_nowhere_else() -> Result<()> {
    let mut world = World::new()?;
    let file = world.path("feed.txt");
    fs::write(&file, addresses(1_000)?)?;
    world.start(&format!("[[feed]]\nname = \"long\"\nsource = \"{}\"\n", file.display()))?;
    fs::write(&file, addresses(ENTRIES)?)?;
    let refresh = ["feed", "refresh", "long", "--wait"];
    let shown = shown_at_a_terminal(&world, &refresh)?;
    ensure!(shown.contains("\rlong: "), "{shown:?}");
    is_wiped(&shown, "long: 300000 prefixes in force")?;
    fs::write(&file, addresses(ENTRIES - 1_000)?)?;
    let piped = world.cli(&refresh)?.success()?;
    ensure!(piped.stderr.is_empty() && piped.stdout.contains("299000 prefixes"), "{piped:?}");
    world.stop()
}
