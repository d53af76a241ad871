//! Programs of the gateway's own machine, by LMTP over a Unix socket: the kernel says who they are.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use postern_tests::{
    process::{output, until},
    recorder::Recorder,
    world::World,
};

/// Listed nowhere.
const STRANGER: &str = "nobody";

/// swaks by LMTP, as that user; what it said and heard.
fn swaks(world: &World, user: &str, to: &str) -> Result<(bool, String)> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", "nogroup", "--clear-groups", "swaks"]);
    command.args(["--protocol", "LMTP", "--socket"]).arg(world.path("lmtp.sock"));
    command.args(["--ehlo", "list.test", "--from", "list@inside.test", "--to", to]);
    let done = output(command.args(["--body", "line one\n.line two"]))?;
    Ok((done.status.success(), done.stdout))
}

#[test]
fn by_lmtp_a_user_is_who_the_kernel_says() -> Result<()> {
    let mut world = World::new()?;
    // Whoever is not root has to get to the socket.
    fs::set_permissions(world.path("."), fs::Permissions::from_mode(0o711))?;
    let inside = Recorder::start(&world.inside, "10.0.0.25:25".parse()?)?;
    world.start(&format!(
        "[lmtp]\nsocket = \"{}\"\nrelay_for_users = [\"root\"]\n",
        world.path("lmtp.sock").display()
    ))?;

    let (went, told) = swaks(&world, STRANGER, "bob@inside.test,carol@inside.test")?;
    ensure!(went && told.matches("<-  250 2.0.0").count() == 2, "{told}");
    let arrived = inside.wait_for(1)?.remove(0);
    let (fields, body) = arrived.split();
    let stranger = nix::unistd::User::from_name(STRANGER)?.map_or(0, |user| user.uid.as_raw());
    let from = format!("from list.test (local user, uid {stranger})");
    ensure!(fields.contains(&from) && fields.contains("with LMTP"), "{fields}");
    ensure!(body.starts_with(b"line one\r\n.line two\r\n"), "{}", body.escape_ascii());

    let (went, told) = swaks(&world, STRANGER, "user@elsewhere.test")?;
    ensure!(!went && told.contains("550 5.7.1 Relaying is prohibited"), "{told}");
    let (went, told) = swaks(&world, "root", "user@elsewhere.test")?;
    ensure!(went && told.contains("<-  250 2.0.0"), "{told}");
    ensure!(world.log().contains("relay list user root on listener lmtp"), "{}", world.log());
    let status = world.cli_ok(&["status"])?;
    ensure!(status.contains("lmtp.sock") && status.contains("for local users root"), "{status}");

    // What a relay that was killed leaves behind stands in nobody's way.
    let relay = world.daemon_pid("relay")?;
    kill(relay, Signal::SIGKILL)?;
    until("the relay to be started again", || {
        let pid = world.daemon_pid("relay").ok().filter(|&pid| pid != relay);
        Ok(pid.and_then(|_| world.cli_ok(&["queue", "list"]).ok()))
    })?;
    let (went, told) = swaks(&world, STRANGER, "bob@inside.test")?;
    ensure!(went, "{told}");
    inside.wait_for(2)?;
    world.stop()
}
