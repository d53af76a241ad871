//! A message's whole way: handed in over TLS with a password, kept, delivered, or returned.

use std::{fs, process::Stdio};

use anyhow::{Result, ensure};
use postern_tests::{
    dialogue::Dialogue,
    process::{Process, output, until},
    recorder::Recorder,
    world::{HONEST, World},
};

/// Everything that a careless relay changes: dots, blanks, 8-bit text, long lines, empty ends.
const BODY: &str = "Zeile mit Umlauten: äöüß\r\n.\r\n..two dots\r\n.dot first\r\n\
                    trailing blanks   \r\n\ttab\r\n\r\n\r\nFrom the start\r\nlast line\r\n";

fn message(from: &str, to: &str) -> String {
    format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: =?UTF-8?Q?T=C3=A4st?=\r\n\
         X-Folded: one\r\n\ttwo\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: 8bit\r\nMessage-ID: <1@{from}>\r\n\
         Date: Sat, 21 Nov 2026 12:00:00 +0000\r\n\r\n{BODY}{}\r\n",
        "x".repeat(900)
    )
}

fn add_account(world: &World, name: &str, password: &str) -> Result<()> {
    let file = world.path("password");
    fs::write(&file, format!("{password}\n"))?;
    let mut command = world.postern(&["--socket-dir"]);
    command.arg(world.socket_dir()).args(["account", "add", name]);
    let status = command.stdin(fs::File::open(file)?).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "account add: {status}");
    Ok(())
}

const STARTTLS: &[&str] = &["--port", "587", "--tls"];
const IMPLICIT_TLS: &[&str] = &["--port", "465", "--tls-on-connect"];

fn swaks(
    world: &World,
    way: &[&str],
    to: &str,
    password: &str,
) -> Result<postern_tests::process::Output> {
    let file = world.path("message.eml");
    // swaks puts the last line end itself.
    let text = message("alice@inside.test", to).replace("\r\n", "\n");
    fs::write(&file, text.trim_end_matches('\n'))?;
    let mut command = world.out.command("swaks");
    command.args(["--server", "203.0.113.1", "--local-interface", HONEST]);
    command.args(way).args([
        "--auth",
        "PLAIN",
        "--auth-user",
        "alice",
        "--auth-password",
        password,
    ]);
    command.args(["--ehlo", "client.test", "--from", "alice@inside.test", "--to", to, "--data"]);
    output(command.arg(format!("@{}", file.display())))
}

#[test]
fn a_submission_with_a_password_arrives_unchanged_by_either_kind_of_tls() -> Result<()> {
    let mut world = World::new()?;
    let inside = Recorder::start(&world.inside, "10.0.0.25:25".parse()?)?;
    let smart_host = Recorder::start(&world.inside, "10.0.0.26:25".parse()?)?;
    world.start("[relay]\nsmart_host = \"10.0.0.26:25\"\n")?;
    add_account(&world, "alice", "correct horse battery staple")?;

    let wrong = swaks(&world, STARTTLS, "bob@inside.test", "wrong")?;
    ensure!(!wrong.status.success() && wrong.stdout.contains("535 5.7.8"), "{wrong:#?}");

    for (to, host, way) in [
        ("bob@inside.test", &inside, STARTTLS),
        ("carol@elsewhere.test", &smart_host, IMPLICIT_TLS),
    ] {
        let sent = swaks(&world, way, to, "correct horse battery staple")?.success()?;
        let queue_id =
            sent.stdout.split("queued as ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let queue_id =
            queue_id.unwrap_or_else(|| panic!("the 250 names no queue id: {}", sent.stdout));
        let arrived = host.wait_for(1)?.remove(0);
        ensure!(arrived.mail_from.starts_with("MAIL FROM:<alice@inside.test>"), "{arrived:?}");
        ensure!(arrived.rcpt_to[0].starts_with(&format!("RCPT TO:<{to}>")), "{arrived:?}");
        let original = message("alice@inside.test", to);
        let (received, rest) = split_received(&arrived.content);
        ensure!(
            rest == original.as_bytes(),
            "changed on the way:\n{}",
            String::from_utf8_lossy(rest)
        );
        for part in [
            "Received: from client.test (",
            "[203.0.113.10]",
            "by mx.gateway.test",
            " with ESMTPSA",
            "TLS",
            &format!(" id {queue_id}"),
            "; ",
            " +0000",
        ] {
            ensure!(received.contains(part), "Received lacks {part:?}: {received}");
        }
    }
    world.stop()
}

/// The first header field, unfolded, and all that follows it as it came.
fn split_received(content: &[u8]) -> (String, &[u8]) {
    let mut end = 0;
    loop {
        let line = content[end..].windows(2).position(|w| w == b"\r\n").unwrap_or(0);
        end += line + 2;
        if !matches!(content.get(end), Some(b' ' | b'\t')) {
            break;
        }
    }
    let field =
        String::from_utf8_lossy(&content[..end]).replace("\r\n\t", " ").replace("\r\n ", " ");
    (field, &content[end..])
}

#[test]
fn smtp_sink_inside_gets_the_message() -> Result<()> {
    let mut world = World::new()?;
    let folder = world.path("sink");
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let mut sink = world.inside.command("smtp-sink");
    sink.args(["-u", "nobody", "-d"]).arg(folder.join("%H%M%S.")).args(["10.0.0.25:25", "10"]);
    let sink = Process::start(&mut sink)?;
    world.start("[queue]\nretry = [\"1s\"]\n")?;
    let mut command = world.out.command("swaks");
    command.args([
        "--server",
        "203.0.113.1",
        "--local-interface",
        HONEST,
        "--from",
        "a@foreign.test",
    ]);
    command.args(["--to", "bob@inside.test", "--body", "line one\nline two", "--tls-optional"]);
    output(&mut command)?.success()?;
    let text = until("smtp-sink to keep the message", || {
        let file = fs::read_dir(&folder)?.next();
        let text = file.map(|file| fs::read_to_string(file?.path())).transpose()?;
        Ok(text.filter(|text| text.contains("line two")))
    })?;
    ensure!(text.contains("\n\nline one\nline two\n"), "{text}");
    ensure!(text.contains("X-Rcpt-Args: <bob@inside.test>"), "{text}");
    drop(sink);
    world.stop()
}

#[test]
fn what_the_inside_host_refuses_comes_back_as_a_report_and_a_report_never_does() -> Result<()> {
    let mut world = World::new()?;
    let smart_host = Recorder::start(&world.inside, "10.0.0.26:25".parse()?)?;
    let mut sink = world.inside.command("smtp-sink");
    let _sink = Process::start(sink.args(["-u", "nobody", "-f", "rcpt", "10.0.0.25:25", "10"]))?;
    world.start("[relay]\nsmart_host = \"10.0.0.26:25\"\n")?;
    for sender in ["author@foreign.test", ""] {
        let mut command = world.out.command("swaks");
        command.args(["--server", "203.0.113.1", "--local-interface", HONEST]);
        command.args(["--from", if sender.is_empty() { "<>" } else { sender }]);
        output(command.args(["--to", "nobody@inside.test"]))?.success()?;
    }
    until("the queue to run empty", || {
        let queue = world.json(&["queue", "list"])?;
        let left = queue["messages"]
            .as_array()
            .is_some_and(|messages| messages.iter().any(|message| message["recipients"] != 0));
        Ok((!left).then_some(()))
    })?;
    let reports = smart_host.messages();
    ensure!(reports.len() == 1, "one report was due, not {}", reports.len());
    let text = String::from_utf8_lossy(&reports[0].content).into_owned();
    ensure!(reports[0].mail_from.starts_with("MAIL FROM:<>"), "{:?}", reports[0].mail_from);
    ensure!(reports[0].rcpt_to[0].starts_with("RCPT TO:<author@foreign.test>"), "{text}");
    for part in [
        "multipart/report",
        "message/delivery-status",
        "Action: failed",
        "rfc822;nobody@inside.test",
    ] {
        ensure!(
            text.replace("rfc822; ", "rfc822;").contains(part),
            "the report lacks {part:?}:\n{text}"
        );
    }
    world.stop()
}

#[test]
fn a_disk_that_is_too_full_is_told_to_the_sender_and_in_the_status() -> Result<()> {
    let mut world = World::new()?;
    world.start("[queue]\nmin_free = \"1000000GiB\"\n")?;
    let status = world.cli_ok(&["status"])?;
    ensure!(status.contains("refused with 452") && status.contains("queue.min_free"), "{status}");
    let mut smtp = Dialogue::open(&world.out, HONEST, "203.0.113.1:25")?;
    smtp.say("EHLO honest.test")?;
    smtp.say("MAIL FROM:<friend@foreign.test>")?;
    smtp.say("RCPT TO:<user@inside.test>")?;
    let reply = smtp.say("DATA")?;
    ensure!(reply.starts_with("452"), "{reply}");
    world.stop()
}

/// Large messages have a file each while they come in, and there are only so many. What is above that
/// is put off, and comes again.
#[test]
fn too_many_large_messages_at_once_are_put_off() -> Result<()> {
    let mut world = World::new()?;
    let inside = Recorder::start(&world.inside, "10.0.0.25:25".parse()?)?;
    // Two files, one for each two connections.
    world.start("[limits]\nconnections = 4\nconnections_per_source = 4\nreserve = \"0%\"\n")?;
    let line = format!("{}\r\n", "x".repeat(70));
    let content = line.repeat((256 << 10) / line.len());
    let begun = || -> Result<Dialogue> {
        let mut smtp = Dialogue::open(&world.out, HONEST, "203.0.113.1:25")?;
        for command in ["EHLO client.test", "MAIL FROM:<a@foreign.test>"] {
            smtp.say(command)?;
        }
        smtp.say("RCPT TO:<user@inside.test>")?;
        smtp.say("DATA")?;
        smtp.send(content.as_bytes())?;
        Ok(smtp)
    };
    let mut first = [begun()?, begun()?];
    let incoming = world.path("state/relay/queue/incoming");
    until("both files to be there", || {
        Ok((fs::read_dir(&incoming)?.count() == first.len()).then_some(()))
    })?;
    let mut third = begun()?;
    third.send(b".\r\n")?;
    let reply = third.reply()?;
    ensure!(reply.starts_with("451 4.4.5"), "{reply}");
    for smtp in &mut first {
        smtp.send(b".\r\n")?;
        let reply = smtp.reply()?;
        ensure!(reply.starts_with("250"), "{reply}");
    }
    // The session of the one that was put off goes on.
    third.say("MAIL FROM:<a@foreign.test>")?;
    third.say("RCPT TO:<user@inside.test>")?;
    third.say("DATA")?;
    third.send(content.as_bytes())?;
    third.send(b".\r\n")?;
    let reply = third.reply()?;
    ensure!(reply.starts_with("250"), "{reply}");
    inside.wait_for(3)?;
    let log = world.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("message not stored")).collect();
    ensure!(told.len() == 1 && told[0].contains("WARN"), "{told:?}");
    let counted = world.json(&["stats"])?["relay"]["counters"]["messages_not_stored"].clone();
    ensure!(counted == 1, "{counted}");
    world.stop()
}
