//! What TLS may not be used for.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use postern_tests::{
    process::until,
    world::{GATEWAY, World},
};

/// A client that begins a second handshake inside the first has said nothing: the time for its next
/// command runs, and with what ends the session it is told that there is no renegotiation (RFC 5246
/// section 7.2.2; TLS 1.3 has none).
#[test]
fn renegotiation_is_refused() -> Result<()> {
    let mut world = World::new()?;
    world.start("[limits]\ncommand_timeout = \"2s\"\n")?;
    let server = format!("{GATEWAY}:25");
    let arguments = ["s_client", "-tls1_2", "-crlf", "-starttls", "smtp", "-connect", &server];
    let mut command = world.out.command("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("starting openssl")?;
    let mut input = child.stdin.take().context("no standard input")?;
    input.write_all(b"NOOP\n")?;
    let mut told = BufReader::new(child.stdout.take().context("no standard output")?);
    let mut said = String::new();
    while !said.contains("\n250 2.0.0 ") {
        ensure!(told.read_line(&mut said)? > 0, "{said}");
    }
    // A line that begins so is an order to s_client.
    input.write_all(b"R\n")?;
    let ended = until("openssl to end", || Ok(child.try_wait()?))?;
    drop(input);
    told.read_to_string(&mut said)?;
    child.stderr.take().context("no standard error")?.read_to_string(&mut said)?;
    ensure!(said.contains("Protocol  : TLSv1.2") && said.contains("RENEGOTIATING"), "{said}");
    ensure!(!ended.success() && said.contains("no renegotiation"), "{ended}: {said}");
    world.stop()
}
