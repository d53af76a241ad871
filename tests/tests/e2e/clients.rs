//! The clients that people use, each with its own idea of SMTP: what they send arrives as it was.
//!
//! Of them only Exim sends BDAT: Postfix's smtp(8) does not know it (its server takes it).

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use postern_tests::{
    packaged::{EXIM, make_certificate},
    postfix::Postfix,
    process::until,
    recorder::{Recorded, Recorder},
    world::{GATEWAY, HONEST, OTHER, World},
};

const ACCOUNT: &str = "alice";
const PASSWORD: &str = "correct-horse-battery-staple";
const TO: &str = "bob@inside.test";
/// Debian's own, for which its packages of modules are made, whatever stands first in PATH.
const PYTHON: &str = "/usr/bin/python3";

const HEADER: &str = "From: Alice <alice@inside.test>\r\nTo: Bob <bob@inside.test>\r\n\
                      Subject: =?UTF-8?Q?T=C3=A4st?=\r\nX-Folded: one\r\n\ttwo\r\nMIME-Version: 1.0\r\n\
                      Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\
                      Message-ID: <1@inside.test>\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\n\r\n";

/// Everything that a careless relay changes: dots, blanks, 8-bit text, long lines, empty ends.
const BODY: &str = "Zeile mit Umlauten: äöüß\r\n.\r\n..two dots\r\n.dot first\r\n\
                    trailing blanks   \r\n\ttab\r\n\r\n\r\nFrom the start\r\n";

/// Where all clients of the test send to, and what.
struct Desk<'a> {
    world: &'a World,
    /// The message with CRLF line ends, and with LF.
    crlf: PathBuf,
    lf: PathBuf,
    /// Without the last line end, for who puts it himself.
    lf_open: PathBuf,
    body_lf: PathBuf,
    password: PathBuf,
}

impl Desk<'_> {
    fn run(&self, command: &mut Command, input: Option<&Path>) -> Result<()> {
        let input = input.map_or(Ok(Stdio::null()), |path| File::open(path).map(Stdio::from))?;
        let done = command.stdin(input).env("LC_ALL", "C.UTF-8").output().with_context(|| {
            format!("starting {command:?}; `cargo xtask setup` installs what tests need")
        })?;
        let (told, errors) =
            (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "{command:?}: {}\n{told}\n{errors}", done.status);
        Ok(())
    }

    /// A client on the internet's side.
    fn client<A: AsRef<OsStr>>(&self, program: &str, arguments: &[A]) -> Command {
        let mut command = self.world.out.command(program);
        command.args(arguments);
        command
    }
}

type Client = fn(&Desk<'_>, &str) -> Result<()>;

/// Each sends the message once, from the sender it is told, in a way that is marked in the protocol
/// of its Received field.
const CLIENTS: &[(&str, &str, Client)] = &[
    ("swaks", "ESMTP", swaks),
    ("smtp-source", "SMTP", smtp_source),
    ("openssl", "ESMTPS", openssl),
    ("smtplib", "ESMTPSA", |desk, sender| python(desk, "smtplib", sender)),
    ("aiosmtplib", "ESMTPSA", |desk, sender| python(desk, "aiosmtplib", sender)),
    ("msmtp", "ESMTPSA", msmtp),
    ("curl", "ESMTPSA", curl),
];

fn swaks(desk: &Desk<'_>, sender: &str) -> Result<()> {
    let data = format!("@{}", desk.lf_open.display());
    let mut command = desk.client("swaks", &["--server", GATEWAY, "--local-interface", HONEST]);
    command.args(["--ehlo", "swaks.test", "--from", sender, "--to", TO, "--data", &data]);
    desk.run(&mut command, None)
}

/// It ends each message with an empty line of its own.
fn smtp_source(desk: &Desk<'_>, sender: &str) -> Result<()> {
    let mut command = desk.client("smtp-source", &["-4", "-M", "smtp-source.test", "-F"]);
    command.arg(&desk.lf).args(["-f", sender, "-t", TO]).arg(format!("{GATEWAY}:25"));
    desk.run(&mut command, None)
}

fn python(desk: &Desk<'_>, library: &str, sender: &str) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients/send.py");
    let mut command = desk.client(PYTHON, &[script]);
    command.args([library, GATEWAY, sender, TO, ACCOUNT, PASSWORD]).arg(&desk.crlf);
    desk.run(&mut command, None)
}

fn msmtp(desk: &Desk<'_>, sender: &str) -> Result<()> {
    let host = format!("--host={GATEWAY}");
    let mut command = desk.client("msmtp", &[&host, "--port=587", "--domain=msmtp.test"]);
    command.args(["--tls=on", "--tls-starttls=on", "--tls-certcheck=off", "--auth=plain"]);
    command.arg(format!("--user={ACCOUNT}"));
    command.arg(format!("--passwordeval=cat {}", desk.password.display()));
    command.arg(format!("--from={sender}")).arg(TO);
    desk.run(&mut command, Some(&desk.lf))
}

fn curl(desk: &Desk<'_>, sender: &str) -> Result<()> {
    let mut command = desk.client("curl", &["--silent", "--show-error", "--ssl-reqd"]);
    command.args(["--insecure", "--login-options", "AUTH=PLAIN", "--mail-from", sender]);
    command.args(["--mail-rcpt", TO, "--user", &format!("{ACCOUNT}:{PASSWORD}")]);
    command.arg("--upload-file").arg(&desk.crlf);
    command.arg(format!("smtp://{GATEWAY}:587/curl.test"));
    desk.run(&mut command, None)
}

/// By hand, through a program that knows TLS and of SMTP only STARTTLS.
fn openssl(desk: &Desk<'_>, sender: &str) -> Result<()> {
    let server = format!("{GATEWAY}:25");
    let arguments = ["s_client", "-quiet", "-starttls", "smtp", "-connect", &server];
    let mut command = desk.client("openssl", &arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("starting openssl")?;
    let mut input = child.stdin.take().context("no standard input")?;
    let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    let mut told = Vec::new();
    let stuffed = fs::read_to_string(&desk.crlf)?.replace("\r\n.", "\r\n..") + ".\r\n";
    let steps = [
        // The server's name begins its reply to this EHLO; what is behind it ends that reply. A line
        // of its reply to the one before STARTTLS may be shown, too.
        ("EHLO openssl.test\r\n".to_owned(), ["250-mx.gateway.test", "250 "]),
        (format!("MAIL FROM:<{sender}> BODY=8BITMIME\r\n"), ["250 2.1.0", ""]),
        (format!("RCPT TO:<{TO}>\r\n"), ["250 2.1.5", ""]),
        ("DATA\r\n".to_owned(), ["354", ""]),
        (stuffed, ["250 2.0.0 Ok: queued", ""]),
        ("QUIT\r\n".to_owned(), ["221", ""]),
    ];
    for (said, due) in steps {
        input.write_all(said.as_bytes())?;
        for start in due.into_iter().filter(|start| !start.is_empty()) {
            loop {
                let line = lines.next().with_context(|| format!("no {start}: {told:#?}"))??;
                told.push(line.clone());
                if line.starts_with(start) {
                    break;
                }
                ensure!(!line.starts_with(['4', '5']), "{start} was due: {told:#?}");
            }
        }
    }
    drop(input);
    child.wait()?;
    Ok(())
}

/// s-nail writes a header of its own, and quotes a "From " itself.
fn s_nail(desk: &Desk<'_>, sender: &str) -> Result<()> {
    let mta = format!("-Smta=smtp://{ACCOUNT}:{PASSWORD}@{GATEWAY}:587");
    let mut command = desk.client("s-nail", &["-:/", "-Sv15-compat", "-Ssendwait", &mta]);
    command.args(["-Ssmtp-use-starttls", "-Ssmtp-auth=plain", "-Stls-verify=ignore"]);
    command.args(["-Shostname=s-nail.test", "-Sttycharset=utf-8", "-Smime-encoding=8bit"]);
    command.args(["-Smta-argv0=", "-r", sender, "-s", "s-nail", TO]);
    desk.run(&mut command, Some(&desk.body_lf))
}

#[test]
fn what_each_client_sends_arrives_byte_for_byte() -> Result<()> {
    let mut world = World::new()?;
    let inside = Recorder::start(&world.inside, "10.0.0.25:25".parse()?)?;
    world.start("")?;
    let password = world.path("password");
    fs::write(&password, format!("{PASSWORD}\n"))?;
    let sockets = world.socket_dir();
    let mut add = world.postern(&["--socket-dir"]);
    add.arg(sockets).args(["account", "add", ACCOUNT]).stdin(File::open(&password)?);
    ensure!(add.stdout(Stdio::null()).status()?.success(), "account add");

    let body = format!("{BODY}{}\r\n", "x".repeat(900));
    let message = format!("{HEADER}{body}");
    let desk = Desk {
        world: &world,
        crlf: world.path("crlf.eml"),
        lf: world.path("lf.eml"),
        lf_open: world.path("open.eml"),
        body_lf: world.path("body"),
        password,
    };
    fs::write(&desk.crlf, &message)?;
    let lf = message.replace("\r\n", "\n");
    fs::write(&desk.lf, &lf)?;
    fs::write(&desk.lf_open, lf.trim_end())?;
    fs::write(&desk.body_lf, body.replace("\r\n", "\n"))?;

    for (name, protocol, client) in CLIENTS {
        let sender = format!("{name}@inside.test");
        client(&desk, &sender).with_context(|| name.to_string())?;
        let arrived = from(&inside, &sender)?;
        ensure!(arrived.rcpt_to == [format!("RCPT TO:<{TO}>")], "{name}: {:?}", arrived.rcpt_to);
        let rest = behind_received(&arrived, name, protocol)?;
        let own_end = if *name == "smtp-source" { "\r\n" } else { "" };
        ensure!(rest == format!("{message}{own_end}"), "{name}: changed on the way:\n{rest}");
    }
    s_nail(&desk, "s-nail@inside.test").context("s-nail")?;
    let arrived = from(&inside, "s-nail@inside.test")?;
    behind_received(&arrived, "s-nail", "ESMTPSA")?;
    let (_, text) = arrived.split();
    let quoted = body.replace("\r\nFrom ", "\r\n>From ");
    ensure!(text == quoted.as_bytes(), "s-nail: {}", String::from_utf8_lossy(text));
    from_postfix(&desk, &inside, &message)?;
    from_exim(&desk, &inside, &message)?;
    world.stop()
}

/// Postfix as the sending server, inside TLS, with an address in UTF-8 and its own envelope
/// parameters, which all go on to the next hop (RFC 6531; RFC 3461 section 5.2.7).
fn from_postfix(desk: &Desk<'_>, inside: &Recorder, message: &str) -> Result<()> {
    let relay = format!("[{GATEWAY}]:25");
    let settings = [
        ("relayhost", relay.as_str()),
        ("smtp_tls_security_level", "encrypt"),
        ("smtp_bind_address", HONEST),
    ];
    let folder = desk.world.path("postfix");
    let postfix = Postfix::start(&desk.world.out, &folder, HONEST, &settings)?;
    let mut sendmail = postfix.sendmail();
    sendmail.args(["-i", "-N", "success,failure", "-V", "QQ314159", "-f", "postfix@inside.test"]);
    desk.run(sendmail.args(["--", "jürgen@inside.test"]), Some(&desk.lf))?;
    let arrived = from(inside, "postfix@inside.test")
        .with_context(|| fs::read_to_string(folder.join("log")).unwrap_or_default())?;
    let options: Vec<&str> = arrived.mail_from.split(' ').skip(2).collect();
    for option in ["SMTPUTF8", "ENVID=QQ314159", "BODY=8BITMIME"] {
        ensure!(arrived.mail_from.contains(option), "no {option} in {options:?}");
    }
    let rcpt = &arrived.rcpt_to[0];
    ensure!(rcpt.starts_with("RCPT TO:<jürgen@inside.test> "), "{rcpt}");
    for option in ["NOTIFY=", "SUCCESS", "FAILURE", "ORCPT=utf-8;j"] {
        ensure!(rcpt.contains(option), "no {option} in {rcpt}");
    }
    let rest = behind_received(&arrived, "postfix", "UTF8SMTPS")?;
    let own = rest.strip_suffix(message).with_context(|| format!("postfix: changed:\n{rest}"))?;
    ensure!(own.starts_with("Received: by postfix.test (Postfix, from userid 0)"), "{own}");
    ensure!(own.matches("\r\n").count() == own.matches("\r\n\t").count() + 1, "more: {own}");
    Ok(())
}

/// Exim as the sending server, inside TLS, by BDAT (RFC 3030): it notes a `K` where it used that.
fn from_exim(desk: &Desk<'_>, inside: &Recorder, message: &str) -> Result<()> {
    let (world, folder) = (desk.world, desk.world.path("exim"));
    make_certificate(world)?;
    // Postfix has the address that the other clients come from.
    let _exim = EXIM.start(&world.out, &folder, OTHER, GATEWAY)?;
    let sender = "exim@inside.test";
    let mut source = desk.client("smtp-source", &["-4", "-M", "to-exim.test", "-F"]);
    source.arg(&desk.lf).args(["-f", sender, "-t", TO]).arg(format!("{OTHER}:25"));
    desk.run(&mut source, None)?;
    let log = folder.join("upper/var/log/exim4/mainlog");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let arrived = from(inside, sender).with_context(said)?;
    let rest = behind_received(&arrived, "exim", "ESMTPS")?;
    // Its own Received, and the empty line that smtp-source ends with.
    let own = rest.strip_suffix(&format!("{message}\r\n"));
    let own = own.with_context(|| format!("exim: changed:\n{rest}"))?;
    ensure!(own.starts_with("Received: from ") && own.contains("\tby peer.test "), "{own}");
    until("Exim to note what it did", || Ok(said().contains(" Completed").then_some(())))?;
    let handed_on = said().lines().find(|line| line.contains(" => ")).map(str::to_owned);
    let handed_on = handed_on.with_context(said)?;
    ensure!(handed_on.contains(" K "), "not by BDAT: {handed_on}");
    Ok(())
}

/// The message of this sender, once it is there.
fn from(inside: &Recorder, sender: &str) -> Result<Recorded> {
    let path = format!("MAIL FROM:<{sender}>");
    until(&format!("the message from {sender}"), || {
        let messages = inside.messages();
        Ok(messages.into_iter().find(|message| message.mail_from.starts_with(&path)))
    })
}

/// All that stands behind the gateway's own field, which has to say how the message came.
fn behind_received(message: &Recorded, client: &str, protocol: &str) -> Result<String> {
    let text = String::from_utf8(message.content.clone())?;
    let end = text.match_indices("\r\n").map(|(at, _)| at + 2);
    let end = end.into_iter().find(|&at| !text[at..].starts_with([' ', '\t']));
    let (field, rest) = text.split_at(end.context("no header field")?);
    let field = field.replace("\r\n\t", " ");
    ensure!(field.starts_with("Received: from "), "{client}: {field}");
    ensure!(field.contains(&format!(" with {protocol} ")), "{client}: no {protocol} in {field}");
    Ok(rest.to_owned())
}
