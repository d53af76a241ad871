//! A yardstick: the least that any server does which stores mail before it says so, and hands it on.
//!
//! It parses nothing, refuses nothing, looks nothing up and finds nothing again after a restart. A
//! thread for each connection answers line by line, writes each message over a place in a file, and
//! syncs that; another thread sends it to the next hop, over one connection, as
//! few packets as can be. What it takes, no durable server gets below while messages come one by
//! one. With many at once it is no measure: there a real one shares a sync between many messages.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::group::Group;
use super::scene::{Kept, Server, Side};
use crate::process::{Process, until};
use crate::world::{INSIDE_HOST, World};

pub(super) const NAME: &str = "a bare server";
const HOST: &str = "10.0.0.4";
/// More than a message of the measurement takes.
const PLACE_BYTES: usize = 64 << 10;
/// Connections take the places of the file in turn.
const PLACES: usize = 64;
/// A connection that was quiet for longer is not used again.
const REUSED_WITHIN: Duration = Duration::from_secs(5);
const END_OF_DATA: &[u8] = b"\r\n.\r\n";

/// Starts it on the gateway, as a process of its own, beside Postern's queue on the same disk.
///
/// # Errors
/// It does not listen.
pub(super) fn start(world: &World) -> Result<Server> {
    world.gw.addr("eth1", &format!("{HOST}/24"))?;
    let mut command = world.gw.command(&std::env::current_exe()?.display().to_string());
    let (listen, next_hop) = (format!("{HOST}:25"), format!("{INSIDE_HOST}:25"));
    command.args(["--bare", &listen, &next_hop]).arg(world.path("bare"));
    let process = Process::start(&mut command)?;
    let group = Group::new("bare")?;
    group.take(process.pid())?;
    until("the bare server to listen", || {
        let listening = world.gw.run("ss", &["-Hltn", &format!("src {listen}")])?;
        Ok((!listening.is_empty()).then_some(()))
    })?;
    Ok(Server {
        side: Side::Bare,
        address: HOST.parse()?,
        version: String::new(),
        kept: Kept::Bare { _server: process },
        group,
    })
}

/// Serves until it is ended.
///
/// # Errors
/// It cannot listen, or cannot make its file.
pub fn serve(listen: &str, next_hop: &str, file: &Path) -> Result<()> {
    let next_hop: SocketAddr = next_hop.parse()?;
    let file = Arc::new(File::create(file)?);
    file.write_all_at(&vec![0; PLACES * PLACE_BYTES], 0)?;
    file.sync_all()?;
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    let (stored, to_deliver) = mpsc::channel();
    std::thread::spawn(move || {
        // Whoever waits for the message says that it did not come.
        if let Err(error) = deliver(next_hop, &to_deliver) {
            eprintln!("{NAME}: {error:#}");
        }
    });
    for place in (0..PLACES).cycle() {
        let (client, _) = listener.accept()?;
        let (file, stored) = (Arc::clone(&file), stored.clone());
        std::thread::spawn(move || receive(client, &file, place * PLACE_BYTES, &stored));
    }
    Ok(())
}

fn receive(client: TcpStream, file: &File, at: usize, stored: &Sender<Vec<u8>>) -> Result<()> {
    client.set_nodelay(true)?;
    let (mut reader, mut client) = (BufReader::new(client.try_clone()?), client);
    client.write_all(b"220 bare\r\n")?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match line.get(..4) {
            Some(b"DATA") => {
                client.write_all(b"354 go\r\n")?;
                let mut message = b"\r\n".to_vec();
                while !message.ends_with(END_OF_DATA) {
                    let read = reader.fill_buf()?;
                    ensure!(!read.is_empty(), "the client left");
                    message.extend_from_slice(read);
                    let length = read.len();
                    reader.consume(length);
                }
                ensure!(message.len() <= PLACE_BYTES, "too large for the measurement");
                file.write_all_at(&message, at as u64)?;
                file.sync_data()?;
                client.write_all(b"250 stored\r\n")?;
                stored.send(message)?;
            }
            Some(b"QUIT") => return Ok(client.write_all(b"221 bye\r\n")?),
            _ => client.write_all(b"250 ok\r\n")?,
        }
    }
}

fn deliver(next_hop: SocketAddr, stored: &Receiver<Vec<u8>>) -> Result<()> {
    let mut connection = None;
    for message in stored {
        // A next hop waits only so long for the next message.
        connection = connection.filter(|(_, used): &(_, Instant)| used.elapsed() < REUSED_WITHIN);
        let ((reader, writer), used) = match &mut connection {
            Some(open) => open,
            none => none.insert((greet(next_hop)?, Instant::now())),
        };
        writer.write_all(
            b"MAIL FROM:<load@foreign.test>\r\nRCPT TO:<user@inside.test>\r\nDATA\r\n",
        )?;
        replies(reader, 3)?;
        writer.write_all(&message[2..])?;
        replies(reader, 1)?;
        *used = Instant::now();
    }
    Ok(())
}

fn greet(next_hop: SocketAddr) -> Result<(BufReader<TcpStream>, TcpStream)> {
    let mut writer = TcpStream::connect(next_hop)?;
    writer.set_nodelay(true)?;
    let mut reader = BufReader::new(writer.try_clone()?);
    replies(&mut reader, 1)?;
    writer.write_all(b"EHLO bare.test\r\n")?;
    replies(&mut reader, 1)?;
    Ok((reader, writer))
}

/// Reads so many replies, each of which must be one of success.
fn replies(reader: &mut impl BufRead, count: usize) -> Result<()> {
    let mut line = String::new();
    for _ in 0..count {
        loop {
            line.clear();
            ensure!(reader.read_line(&mut line)? > 0, "the next hop left");
            ensure!(line.starts_with(['2', '3']), "the next hop said {line:?}");
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
    }
    Ok(())
}
