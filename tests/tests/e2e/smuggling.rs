//! SMTP smuggling, all the way: what some server takes for the end of a message, sent through the
//! gateway to next hops that are easily fooled. One message arrives or none, never a second.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use postern_tests::{
    dialogue::Dialogue,
    postfix::Postfix,
    process::{Process, until},
    world::{HONEST, World},
};

/// How the first message is ended, if the next hop can be made to believe so.
struct Bait {
    name: &'static str,
    /// One write for DATA, a chunk each for BDAT.
    end: &'static [&'static [u8]],
    /// Every CR and LF of it belongs to a CRLF, so that even a strict server takes the message.
    is_clean: bool,
}

const fn bare(name: &'static str, end: &'static [&'static [u8]]) -> Bait {
    Bait { name, end, is_clean: false }
}

const fn clean(name: &'static str, end: &'static [&'static [u8]]) -> Bait {
    Bait { name, end, is_clean: true }
}

const BAITS: &[Bait] = &[
    bare("lf.lf", &[b"\n.\n"]),
    bare("lf.crlf", &[b"\n.\r\n"]),
    bare("lf.cr", &[b"\n.\r"]),
    bare("crlf.lf", &[b"\r\n.\n"]),
    bare("crlf.cr", &[b"\r\n.\r"]),
    bare("crlf.crcrlf", &[b"\r\n.\r\r\n"]),
    bare("crlf.lfcr", &[b"\r\n.\n\r"]),
    bare("cr.cr", &[b"\r.\r"]),
    bare("cr.lf", &[b"\r.\n"]),
    bare("cr.crlf", &[b"\r.\r\n"]),
    bare("lf.dot.lf", &[b"\n..\n"]),
    bare("lf.dot.crlf", &[b"\n..\r\n"]),
    bare("crlf.dot.lf", &[b"\r\n..\n"]),
    bare("crlf.dot.cr", &[b"\r\n..\r"]),
    bare("cr.dot.cr", &[b"\r..\r"]),
    clean("crlf.dot.crlf", &[b"\r\n..\r\n"]),
    clean("crlf.dots.crlf", &[b"\r\n...\r\n"]),
    clean("crlf.nul.crlf", &[b"\r\n.\0\r\n"]),
    clean("crlf.nul.before.crlf", &[b"\r\n\0.\r\n"]),
    clean("crlf.dots.nul.crlf", &[b"\r\n..\0\r\n"]),
    bare("crlf.cr.nul.lf", &[b"\r\n.\r\0\n"]),
    bare("cr.nul.lf.crlf", &[b"\r\0\n.\r\n"]),
    bare("lf.nul.lf", &[b"\n\0.\n"]),
    bare("lf.nul.crlf", &[b"\n.\0\r\n"]),
];

/// In BDAT, dots and line ends end nothing (RFC 3030 section 2), so whoever hands the message on by
/// DATA has to stuff what was never stuffed, also where the chunks were cut in the middle of it.
const CHUNK_BAITS: &[Bait] = &[
    clean("crlf.crlf", &[b"\r\n.\r\n"]),
    clean("crlf.crlf-cut-1", &[b"\r", b"\n.\r\n"]),
    clean("crlf.crlf-cut-2", &[b"\r\n", b".\r\n"]),
    clean("crlf.crlf-cut-3", &[b"\r\n.", b"\r\n"]),
    clean("crlf.crlf-cut-4", &[b"\r\n.\r", b"\n"]),
    bare("lf.crlf-cut", &[b"\n", b".\r\n"]),
    bare("crlf.cr-cut", &[b"\r\n.\r", b""]),
];

/// What stands behind the bait: a whole transaction of its own, from a sender of the attacker's
/// choice.
const SMUGGLED: &str = "MAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<victim@inside.test>\r\n\
                        RCPT TO:<victim@aiosmtpd.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n\
                        this is the end\r\n";

const CONFIG: &str = r#"
[[domain]]
name = "inside.test"
route = "inbound"
host = ["10.0.0.25:25"]
[[domain]]
name = "aiosmtpd.test"
route = "inbound"
host = ["10.0.0.26:25"]
[queue]
retry = ["1s"]
[ban]
threshold = 1000
[smtp]
"#;

#[test]
fn no_end_of_data_but_the_true_one_makes_two_messages_of_one() -> Result<()> {
    let mut world = World::new()?;
    let victims = Victims::start(&world)?;
    victims.are_fooled(&world)?;
    let mut due = Vec::new();
    for mode in ["reject", "normalize"] {
        world.start(&format!("{CONFIG}bare_newlines = \"{mode}\"\n"))?;
        for (bait, by_data) in
            BAITS.iter().flat_map(|bait| [(bait, true), (bait, false)]).chain(chunked())
        {
            let verb = if by_data { "data" } else { "bdat" };
            let sender = format!("{mode}-{verb}-{}@foreign.test", bait.name);
            let accepted = send(&world, &sender, bait, by_data)
                .with_context(|| format!("{mode} {verb} {}", bait.name))?;
            ensure!(
                accepted == (bait.is_clean || mode == "normalize"),
                "{sender}: accepted is {accepted}"
            );
            due.extend(accepted.then_some(sender));
        }
        until("the queue to run empty", || {
            let queue = world.json(&["queue", "list"])?;
            let messages = queue["messages"].as_array().context("no list of messages")?;
            Ok(messages.iter().all(|message| message["recipients"] == 0).then_some(()))
        })?;
        due.sort();
        ensure!(victims.postfix_has()? == due, "Postfix has other mail: {due:#?}");
        ensure!(victims.aiosmtpd_has()? == due, "aiosmtpd has other mail: {due:#?}");
        world.stop()?;
    }
    Ok(())
}

fn chunked() -> impl Iterator<Item = (&'static Bait, bool)> {
    CHUNK_BAITS.iter().map(|bait| (bait, false))
}

/// Sends one message with the bait and the smuggled one in it, and says whether it was accepted.
/// Whatever the gateway takes for a second command would be answered with a second reply.
fn send(world: &World, sender: &str, bait: &Bait, by_data: bool) -> Result<bool> {
    let mut smtp = Dialogue::open(&world.out, HONEST, "203.0.113.1:25")?;
    smtp.say("EHLO honest.test")?;
    smtp.say(&format!("MAIL FROM:<{sender}>"))?;
    for domain in ["inside.test", "aiosmtpd.test"] {
        let reply = smtp.say(&format!("RCPT TO:<user@{domain}>"))?;
        ensure!(reply.starts_with("250"), "{reply}");
    }
    let start = format!("From: <{sender}>\r\nSubject: bait\r\n\r\nfirst");
    let reply = if by_data {
        smtp.say("DATA")?;
        let parts = [start.as_bytes(), &bait.end.concat(), SMUGGLED.as_bytes(), b".\r\n"];
        smtp.send(&parts.concat())?;
        smtp.reply()?
    } else {
        let mut chunks: Vec<Vec<u8>> = bait.end.iter().map(|part| part.to_vec()).collect();
        chunks[0].splice(..0, start.bytes());
        if let Some(last) = chunks.last_mut() {
            last.extend(SMUGGLED.bytes());
        }
        by_chunks(&mut smtp, &chunks)?
    };
    if reply.starts_with("554 5.6.11") {
        let more = smtp.say("NOOP");
        ensure!(more.is_err(), "the session goes on: {more:?}");
        return Ok(false);
    }
    ensure!(reply.starts_with("250 2.0.0 Ok: queued"), "{reply}");
    let reply = smtp.say("QUIT")?;
    ensure!(reply.starts_with("221"), "something else was answered before QUIT: {reply}");
    Ok(true)
}

fn by_chunks(smtp: &mut Dialogue, chunks: &[Vec<u8>]) -> Result<String> {
    for (left, chunk) in (0..chunks.len()).rev().zip(chunks) {
        let last = if left == 0 { " LAST" } else { "" };
        let command = format!("BDAT {}{last}\r\n", chunk.len());
        smtp.send(&[command.as_bytes(), chunk].concat())?;
        let reply = smtp.reply()?;
        if left == 0 || !reply.starts_with("250") {
            return Ok(reply);
        }
    }
    Ok(String::new())
}

/// Next hops that keep each message in a file that names its sender.
struct Victims {
    postfix: Postfix,
    _aiosmtpd: Process,
    folder: PathBuf,
}

impl Victims {
    fn start(world: &World) -> Result<Self> {
        let folder = world.path("victims");
        let mail = folder.join("postfix-mail");
        fs::create_dir_all(&mail)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let nobody = 65_534;
        chown(&mail, Some(nobody), Some(nobody))?;
        let settings = [
            // As Postfix came before 2024: it takes LF.CRLF for the end of a message.
            ("smtpd_forbid_bare_newline", "no"),
            ("smtpd_forbid_unauth_pipelining", "no"),
            ("virtual_mailbox_domains", "inside.test"),
            ("virtual_mailbox_base", &mail.display().to_string()),
            ("virtual_mailbox_maps", "static:box/"),
            ("virtual_uid_maps", "static:65534"),
            ("virtual_gid_maps", "static:65534"),
        ];
        let postfix =
            Postfix::start(&world.inside, &folder.join("postfix"), "10.0.0.25", &settings)?;
        let mut aiosmtpd = world.inside.command("aiosmtpd");
        aiosmtpd.args(["--nosetuid", "--listen", "10.0.0.26:25"]);
        aiosmtpd.args(["--class", "aiosmtpd.handlers.Mailbox"]).arg(folder.join("aiosmtpd-mail"));
        let aiosmtpd = Process::start(&mut aiosmtpd)?;
        until("aiosmtpd to listen", || {
            let sockets = world.inside.run("ss", &["-Hltn", "sport = :25"])?;
            Ok(sockets.contains("10.0.0.26:25").then_some(()))
        })?;
        Ok(Self { postfix, _aiosmtpd: aiosmtpd, folder })
    }

    /// Without the gateway between, Postfix takes the smuggled message: else there is nothing to guard.
    fn are_fooled(&self, world: &World) -> Result<()> {
        let mut smtp = Dialogue::open(&world.gw, "10.0.0.1", "10.0.0.25:25")?;
        for line in
            ["EHLO gw.test", "MAIL FROM:<fooled@foreign.test>", "RCPT TO:<user@inside.test>"]
        {
            let reply = smtp.say(line)?;
            ensure!(reply.starts_with("250"), "{line}: {reply}");
        }
        smtp.say("DATA")?;
        let text = format!("Subject: bait\r\n\r\nfirst\n.\r\n{SMUGGLED}.\r\nQUIT\r\n");
        smtp.send(text.as_bytes())?;
        while !smtp.reply()?.starts_with("221") {}
        let has = self.postfix_has()?;
        ensure!(has == ["fooled@foreign.test", "smuggled@evil.test"], "not fooled: {has:?}");
        Ok(fs::remove_dir_all(self.folder.join("postfix-mail/box"))?)
    }

    fn postfix_has(&self) -> Result<Vec<String>> {
        self.postfix.until_idle()?;
        senders(&self.folder.join("postfix-mail/box/new"), "Return-Path: <")
    }

    fn aiosmtpd_has(&self) -> Result<Vec<String>> {
        senders(&self.folder.join("aiosmtpd-mail/new"), "X-MailFrom: ")
    }
}

/// The sender of each message in a folder, in order. Each has to be whole.
fn senders(folder: &Path, field: &str) -> Result<Vec<String>> {
    let mut senders = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let text = String::from_utf8_lossy(&fs::read(entry?.path())?).into_owned();
        let sender = text.lines().find_map(|line| line.strip_prefix(field));
        let sender = sender.with_context(|| format!("no {field} in {text}"))?;
        if !sender.starts_with("fooled@") {
            ensure!(text.trim_end().ends_with("this is the end"), "cut off: {text:?}");
        }
        senders.push(sender.trim_end_matches('>').to_owned());
    }
    senders.sort();
    Ok(senders)
}
