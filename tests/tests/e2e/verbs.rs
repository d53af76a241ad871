//! The verbs that ask the relay, against the real one: queue, accounts, never-route.

use std::fs;

use anyhow::{Context, Result, ensure};
use postern_tests::{
    process::{output, until},
    recorder::Recorder,
    world::{HONEST, OTHER, World},
};

/// A message from each of these, for an inside host that is not there yet. The ids of the two.
fn two_waiting(world: &World) -> Result<[String; 2]> {
    for (sender, recipient) in [("a@one.test", "bob"), ("b@two.test", "carol")] {
        let mut swaks = world.out.command("swaks");
        swaks.args(["--server", "203.0.113.1", "--local-interface", HONEST, "--from", sender]);
        output(swaks.args(["--to", &format!("{recipient}@inside.test")]))?.success()?;
    }
    until("both to have been tried", || {
        let queue = world.json(&["queue", "list"])?;
        let messages = queue["messages"].as_array().context("a list")?;
        let tried = messages.iter().filter(|message| message["attempts"] == 1);
        Ok((tried.count() == 2).then_some(()))
    })?;
    let id = |list: &[&str]| -> Result<String> {
        let queue = world.json(list)?;
        let messages = queue["messages"].as_array().context("a list")?;
        ensure!(messages.len() == 1, "{list:?} finds {queue}");
        Ok(messages[0]["id"].as_str().context("an id")?.to_owned())
    };
    Ok([
        id(&["queue", "list", "--sender", "@one.test"])?,
        id(&["queue", "list", "--recipient", "Carol@inside.test"])?,
    ])
}

#[test]
fn waiting_mail_is_listed_shown_deleted_and_tried_again_by_command() -> Result<()> {
    let mut world = World::new()?;
    world.start("[queue]\nretry = [\"1h\"]\n")?;
    let [first, second] = two_waiting(&world)?;
    let both = world.json(&["queue", "list", "--recipient", "@inside.test"])?;
    ensure!(both["messages"].as_array().is_some_and(|all| all.len() == 2), "{both}");

    let shown = world.cli_ok(&["queue", "show", &first])?;
    for part in ["a@one.test", "bob@inside.test", "10.0.0.25", "Subject: "] {
        ensure!(shown.contains(part), "show lacks {part:?}:\n{shown}");
    }
    world.cli_ok(&["queue", "delete", &first])?;
    ensure!(world.cli(&["queue", "show", &first])?.status.code() == Some(3), "still there");

    // The host comes up; the next attempt is an hour away, unless asked for.
    let inside = Recorder::start(&world.inside, "10.0.0.25:25".parse()?)?;
    world.cli_ok(&["queue", "retry", &second])?;
    let arrived = inside.wait_for(1)?;
    ensure!(arrived[0].rcpt_to[0].contains("carol@inside.test"), "{arrived:?}");
    world.stop()
}

#[test]
fn an_account_is_made_disabled_enabled_given_a_password_and_deleted() -> Result<()> {
    let mut world = World::new()?;
    world.start("")?;
    let with_password = |verb: &str, password: &str| -> Result<()> {
        let file = world.path("password");
        fs::write(&file, password)?;
        let mut command = world.postern(&["--socket-dir"]);
        command.arg(world.socket_dir()).args(["account", verb, "alice"]);
        let status = command.stdin(fs::File::open(file)?).status()?;
        ensure!(status.success(), "account {verb}: {status}");
        Ok(())
    };
    let login = |password: &str| -> Result<bool> {
        let mut swaks = world.out.command("swaks");
        swaks.args(["--server", "203.0.113.1", "--port", "587", "--local-interface", HONEST]);
        swaks.args(["--tls", "--auth", "PLAIN", "--auth-user", "alice", "--quit-after", "AUTH"]);
        Ok(output(swaks.args(["--auth-password", password]))?.status.success())
    };
    with_password("add", "the first one, long enough")?;
    ensure!(login("the first one, long enough")?, "the account cannot log in");
    with_password("passwd", "the second one, long enough")?;
    ensure!(!login("the first one, long enough")?, "the old password still serves");
    ensure!(login("the second one, long enough")?, "the new password does not serve");
    world.cli_ok(&["account", "disable", "alice"])?;
    ensure!(!login("the second one, long enough")?, "a disabled account logs in");
    world.cli_ok(&["account", "enable", "alice"])?;
    ensure!(login("the second one, long enough")?, "an enabled account cannot log in");
    world.cli_ok(&["account", "delete", "alice"])?;
    ensure!(!login("the second one, long enough")?, "a deleted account logs in");
    ensure!(!world.cli_ok(&["account", "list"])?.contains("alice"), "still listed");
    world.stop()
}

#[test]
fn never_route_rows_come_go_and_survive_a_restart() -> Result<()> {
    let mut world = World::new()?;
    world.start("[relay]\nnever_route = [\"10.9.0.0/16\"]\n")?;
    world.cli_ok(&["never-route", "add", OTHER, "192.168.0.0/255.255.0.0"])?;
    ensure!(world.cli(&["never-route", "add", "192.0.2.1/24"])?.stderr.contains("192.0.2.0/24"));
    let fixed = world.cli(&["never-route", "del", "10.9.0.0/16"])?;
    ensure!(!fixed.status.success() && fixed.stderr.contains("relay.never_route"), "{fixed:?}");
    world.cli_ok(&["never-route", "del", OTHER])?;
    world.stop()?;
    world.start("[relay]\nnever_route = [\"10.9.0.0/16\"]\n")?;
    let list = world.cli_ok(&["never-route", "list"])?;
    ensure!(list.contains("192.168.0.0/16") && list.contains("10.9.0.0/16"), "{list}");
    ensure!(!list.contains(OTHER), "{list}");
    world.stop()
}
