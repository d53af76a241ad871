//! A tap on the line between a load client and Postern: it hands bytes on and writes down every
//! queue id that a 250 named. So a test knows exactly which messages were acknowledged to a client
//! that keeps no record of its own, such as smtp-source.

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result};

use crate::netns::Netns;

/// What a reply that accepts a message says before the queue id.
const QUEUED_AS: &str = "queued as ";

/// The tap; its threads end with the test process.
#[derive(Debug)]
pub struct Tap {
    acknowledged: Arc<Mutex<HashSet<String>>>,
}

impl Tap {
    /// Listens on `listen` inside a namespace and hands on to `server`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(ns: &Netns, listen: SocketAddr, server: SocketAddr) -> Result<Self> {
        let listener = ns.enter(|| TcpListener::bind(listen))?.context("binding the tap")?;
        let tap = Self { acknowledged: Arc::default() };
        let acknowledged = Arc::clone(&tap.acknowledged);
        let ns_file = ns.path();
        std::thread::spawn(move || {
            // The connections onwards have to start in the same namespace.
            let entered =
                std::fs::File::open(ns_file).map_err(anyhow::Error::from).and_then(|file| {
                    Ok(nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?)
                });
            entered.expect("the namespace outlives the tap");
            for client in listener.incoming().map_while(Result::ok) {
                // A server that is down: the client sees its connection closed.
                let Ok(server) = TcpStream::connect(server) else { continue };
                hand_on(client, server, Arc::clone(&acknowledged));
            }
        });
        Ok(tap)
    }

    /// The ids of all messages acknowledged so far.
    pub fn acknowledged(&self) -> HashSet<String> {
        self.acknowledged.lock().expect("no thread panics while it holds the set").clone()
    }
}

fn hand_on(client: TcpStream, server: TcpStream, acknowledged: Arc<Mutex<HashSet<String>>>) {
    let copies = (client.try_clone(), server.try_clone());
    let (Ok(mut client_read), Ok(mut server_write)) = copies else { return };
    std::thread::spawn(move || {
        let _either_end_closed = std::io::copy(&mut client_read, &mut server_write);
        let _closed_already = server_write.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let (mut server, mut client) = (server, client);
        let mut line = Vec::new();
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = server.read(&mut bytes) {
            for &byte in &bytes[..length] {
                line.push(byte);
                if byte == b'\n' {
                    let text = String::from_utf8_lossy(&line);
                    if let Some((_, id)) = text.split_once(QUEUED_AS) {
                        let id = id.trim().to_owned();
                        acknowledged.lock().expect("nobody panics with it").insert(id);
                    }
                    line.clear();
                }
            }
            if client.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _closed_already = client.shutdown(Shutdown::Both);
    });
}
