//! No room on the disk that holds the state: mail is put off, nothing crashes, denials hold, and all
//! heals when there is room again. The disk is a file system of the test's own.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::PathBuf,
};

use anyhow::{Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use postern_tests::{
    dialogue::{Dialogue, connect},
    process::{output, until},
    recorder::Recorder,
    world::{GATEWAY, HONEST, OTHER, World},
};

use crate::continuity::kill_all;

const CONFIG: &str = "[queue]\nmin_free = \"1MiB\"\nretry = [\"1s\"]\n";

/// A small disk where the world keeps its state. It goes when this is dropped.
struct Disk {
    place: PathBuf,
}

impl Disk {
    fn under(world: &World) -> Result<Self> {
        let place = world.path("state");
        fs::create_dir(&place)?;
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=16m,mode=755"))?;
        Ok(Self { place })
    }

    /// Takes the last octet.
    fn fill(&self) -> Result<()> {
        let mut filler = fs::File::options().create(true).append(true).open(self.filler())?;
        for chunk in [1 << 20, 4096, 1] {
            let chunk = vec![b'x'; chunk];
            loop {
                match filler.write(&chunk) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.place.join("somebody-elses")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}

/// The replies to a message up to the one that decides: `DATA`'s, or that to its end.
fn offer(world: &World) -> Result<String> {
    let mut smtp = Dialogue::open(&world.out, HONEST, &format!("{GATEWAY}:25"))?;
    for command in ["EHLO honest.test", "MAIL FROM:<a@honest.test>", "RCPT TO:<user@inside.test>"] {
        let reply = smtp.say(command)?;
        if !reply.starts_with("250") {
            return Ok(reply);
        }
    }
    let reply = smtp.say("DATA")?;
    if !reply.starts_with("354") {
        return Ok(reply);
    }
    smtp.say("Subject: test\r\n\r\nbody\r\n.")
}

fn is_shut_out(world: &World) -> bool {
    let within = std::time::Duration::from_millis(500);
    connect(&world.out, OTHER, &format!("{GATEWAY}:25"), within).is_err()
}

/// What an administrator sees and a sender is told while there is no room.
fn is_put_off(world: &World) -> Result<()> {
    // Something smaller than a message, such as the outcome of an attempt, may still find room after
    // one was refused; then there is room, as far as anybody knows, until the next is.
    until("the status to say what a sender is told", || {
        let reply = offer(world)?;
        ensure!(reply.starts_with("452 4.3.1"), "{reply}");
        let status = world.cli_ok(&["status"])?;
        Ok(status.contains("new mail is refused with 452").then_some(()))
    })?;
    ensure!(is_shut_out(world), "the list is not enforced");
    let refused = world.cli(&["deny", "add", "198.51.100.7"])?;
    let said = format!("{}{}", refused.stdout, refused.stderr);
    ensure!(!refused.status.success() && said.contains("disk"), "{said}");
    Ok(())
}

fn heals(world: &World, disk: &Disk) -> Result<()> {
    disk.make_room()?;
    until("mail to be taken again", || Ok(offer(world)?.starts_with("250").then_some(())))?;
    world.cli_ok(&["deny", "add", "198.51.100.7"])?;
    world.cli_ok(&["deny", "del", "198.51.100.7"])?;
    let status = world.cli_ok(&["status"])?;
    ensure!(!status.contains("452"), "{status}");
    let log = world.log();
    ensure!(!log.contains("panicked") && !log.contains("ended by signal"), "{log}");
    Ok(())
}

#[test]
fn a_disk_without_room_puts_mail_off_and_keeps_nothing_from_starting() -> Result<()> {
    let mut world = World::new()?;
    let disk = Disk::under(&world)?;
    world.start(CONFIG)?;
    world.cli_ok(&["deny", "add", OTHER])?;
    ensure!(offer(&world)?.starts_with("250"));
    // Filled while it runs.
    disk.fill()?;
    is_put_off(&world)?;
    heals(&world, &disk)?;
    // Filled before a start, after an end in order, with messages that wait.
    world.stop()?;
    // A start would take the room of the earlier index for its own.
    let index = world.path("state/relay/queue/queue.sqlite-shm");
    if index.exists() {
        fs::remove_file(index)?;
    }
    disk.fill()?;
    world.start(CONFIG)?;
    is_put_off(&world)?;
    let status = world.cli_ok(&["status"])?;
    ensure!(status.contains("the queue cannot be opened"), "{status}\n{}", world.log());
    ensure!(world.log().contains("the queue is closed"), "{}", world.log());
    let inside = Recorder::start(&world.inside, "10.0.0.25:25".parse()?)?;
    heals(&world, &disk)?;
    inside.wait_for(3)?;
    // And after a kill, with all that it leaves on the disk; and with more to deny.
    disk.fill()?;
    kill_all(&mut world)?;
    disk.fill()?;
    world.start(&format!("{CONFIG}[filter]\ndeny = [\"198.51.100.0/24\"]\n"))?;
    is_put_off(&world)?;
    ensure!(world.cli_ok(&["status"])?.contains("filter.deny is not in force as configured"));
    heals(&world, &disk)?;
    inside.wait_for(4)?;
    until("the configuration to be in force", || {
        Ok((world.json(&["explain", "198.51.100.9"])?["edge"]["verdict"] == "denied").then_some(()))
    })?;
    world.stop()
}

#[test]
fn a_first_start_without_room_says_so_in_a_sentence() -> Result<()> {
    let world = World::new()?;
    let disk = Disk::under(&world)?;
    disk.fill()?;
    let config = world.write_config("")?;
    let ended = output(world.postern(&["run", "--config"]).arg(config))?;
    let said = format!("{}{}", ended.stdout, ended.stderr);
    ensure!(!ended.status.success() && said.contains("No space left on device"), "{said}");
    ensure!(!said.contains("panicked"), "{said}");
    Ok(())
}
