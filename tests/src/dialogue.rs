//! A client that says exactly what a test wants said, from the source address it wants.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpStream},
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::{netns::Netns, process::PATIENCE};

/// An SMTP connection in the hands of a test.
#[derive(Debug)]
pub struct Dialogue {
    reader: BufReader<TcpStream>,
    /// The banner, or the reply in its place.
    pub greeting: String,
}

impl Dialogue {
    /// Connects from one address of a namespace to a server, and reads the banner.
    ///
    /// # Errors
    /// No connection within the patience of the tests, or no banner.
    pub fn open(ns: &Netns, from: &str, to: &str) -> Result<Self> {
        Self::behind(ns, from, to, b"")
    }

    /// The same, with something said before, as a balancer does.
    ///
    /// # Errors
    /// As above.
    pub fn behind(ns: &Netns, from: &str, to: &str, header: &[u8]) -> Result<Self> {
        let mut stream = connect(ns, from, to, PATIENCE)?;
        stream.write_all(header)?;
        let mut dialogue = Self { reader: BufReader::new(stream), greeting: String::new() };
        dialogue.greeting = dialogue.reply()?;
        Ok(dialogue)
    }

    /// Sends a line and returns the reply, its lines joined by `\n`.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn say(&mut self, line: &str) -> Result<String> {
        self.send(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader.get_mut().write_all(bytes).context("sending")
    }

    /// # Errors
    /// The connection is gone, or what came is no reply.
    pub fn reply(&mut self) -> Result<String> {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            ensure!(self.reader.read_line(&mut line)? > 0, "connection closed; so far: {reply:?}");
            let line = line.trim_end();
            reply.push_str(line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(reply);
            }
            reply.push('\n');
        }
    }
}

/// A TCP connection from one address of a namespace, in the time given.
///
/// # Errors
/// It is not set up in that time.
pub fn connect(ns: &Netns, from: &str, to: &str, within: std::time::Duration) -> Result<TcpStream> {
    let source: IpAddr = from.parse()?;
    let target: SocketAddr = to.parse()?;
    ns.enter(|| {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&target.into(), within)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(TcpStream::from(socket))
    })?
}
