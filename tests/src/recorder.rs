//! A mail server that takes everything and keeps each message exactly as it came, byte for byte.
//! smtp-sink turns line ends into its own, so it cannot show that nothing was changed.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};

use crate::{netns::Netns, process::until};

const EXTENSIONS: &[u8] =
    b"250-recorder.test\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250-DSN\r\n250 8BITMIME\r\n";

/// One message as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub mail_from: String,
    pub rcpt_to: Vec<String>,
    /// Content with CRLF line ends, dots unstuffed, without the closing dot.
    pub content: Vec<u8>,
}

impl Recorded {
    /// The header block and the body, without the empty line between them.
    pub fn split(&self) -> (String, &[u8]) {
        let end =
            self.content.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(self.content.len());
        let body = self.content.get(end + 4..).unwrap_or_default();
        (String::from_utf8_lossy(&self.content[..end]).into_owned(), body)
    }
}

/// The server; its threads end with the test process.
#[derive(Debug, Clone)]
pub struct Recorder {
    messages: Arc<Mutex<Vec<Recorded>>>,
}

impl Recorder {
    /// Listens on `address` inside a namespace.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(ns: &Netns, address: SocketAddr) -> Result<Self> {
        let listener = ns.enter(|| TcpListener::bind(address))?.context("binding the recorder")?;
        let recorder = Self { messages: Arc::default() };
        let messages = Arc::clone(&recorder.messages);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let messages = Arc::clone(&messages);
                // A client that goes away in the middle is no message.
                std::thread::spawn(move || drop(serve(&stream, &messages)));
            }
        });
        Ok(recorder)
    }

    pub fn messages(&self) -> Vec<Recorded> {
        self.messages.lock().expect("no thread panics while it holds the list").clone()
    }

    /// Waits until so many messages have come, and returns them.
    ///
    /// # Errors
    /// They do not come in time.
    pub fn wait_for(&self, count: usize) -> Result<Vec<Recorded>> {
        until(&format!("{count} recorded messages"), || {
            let messages = self.messages();
            Ok((messages.len() >= count).then_some(messages))
        })
    }
}

fn serve(stream: &TcpStream, messages: &Mutex<Vec<Recorded>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    let mut mail_from = String::new();
    let mut rcpt_to = Vec::new();
    let mut line = String::new();
    writer.write_all(b"220 recorder.test ESMTP\r\n")?;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let command = line.trim_end().to_owned();
        match command.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" => writer.write_all(EXTENSIONS)?,
            "MAIL" => {
                mail_from = command;
                rcpt_to.clear();
                writer.write_all(b"250 2.1.0 Ok\r\n")?;
            }
            "RCPT" => {
                rcpt_to.push(command);
                writer.write_all(b"250 2.1.5 Ok\r\n")?;
            }
            "DATA" => {
                writer.write_all(b"354 go on\r\n")?;
                let content = read_data(&mut reader)?;
                let message =
                    Recorded { mail_from: mail_from.clone(), rcpt_to: rcpt_to.clone(), content };
                messages.lock().expect("no thread panics while it holds the list").push(message);
                writer.write_all(b"250 2.0.0 recorded\r\n")?;
            }
            "QUIT" => return writer.write_all(b"221 2.0.0 bye\r\n"),
            _ => writer.write_all(b"250 2.0.0 Ok\r\n")?,
        }
    }
}

fn read_data(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(content);
        }
        let stuffed = usize::from(line.starts_with(b"."));
        content.extend_from_slice(&line[stuffed..]);
    }
}
