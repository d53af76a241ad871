//! Accepts connections: one task for each bound address, one for each session.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    admission::Crowded,
    connection,
    listener::Bound,
    state::{Listener, Shared},
};

/// How long sessions get to end in order.
const SESSIONS_END_WITHIN: Duration = Duration::from_secs(10);

/// Accepts on every bound address, each in a task of its own.
pub(super) fn accept_all(
    shared: &Arc<Shared>,
    bound: Vec<Bound>,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    for bound in bound {
        let socket = TcpListener::from_std(bound.socket).context("serving a listener")?;
        let listener = Arc::clone(&shared.listeners[bound.listener]);
        tasks.spawn(accept(Arc::clone(shared), listener, socket, stop.clone()));
    }
    Ok(tasks)
}

/// Takes connections until told to stop, then waits for their sessions.
async fn accept(
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    socket: TcpListener,
    stop: CancellationToken,
) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    session(&shared, &listener, stream, peer, &stop, &mut sessions).await;
                }
                Err(error) => {
                    // Out of descriptors, most likely: they come back as sessions end.
                    tracing::error!(listener = listener.name, %error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            // Ended ones are taken out, so that the set is bounded by the admission.
            Some(ended) = sessions.join_next() => report(&shared, ended),
        }
    }
    drop(socket);
    while let Some(ended) = sessions.join_next().await {
        report(&shared, ended);
    }
}

fn report(shared: &Shared, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        shared.counters.defects.add();
        tracing::error!(%error, "a session ended by a defect of this program");
    }
}

async fn session(
    shared: &Arc<Shared>,
    listener: &Arc<Listener>,
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    stop: &CancellationToken,
    sessions: &mut JoinSet<()>,
) {
    let ticket = match shared.admission.admit(peer.ip()) {
        Ok(ticket) => ticket,
        Err(crowded) => return turn_away(shared, listener, &stream, peer, crowded),
    };
    let local = match stream.local_addr() {
        Ok(local) => local,
        Err(error) => {
            tracing::debug!(source = %peer.ip(), %error, "gone before it was served");
            return;
        }
    };
    shared.counters.connections.add();
    let (shared, listener, stop) = (Arc::clone(shared), Arc::clone(listener), stop.clone());
    sessions.spawn(async move {
        connection::serve(shared, listener, stream, peer, local, stop).await;
        drop(ticket);
    });
}

/// A single write that need not succeed: a crowd must not cost more than its connections.
fn turn_away(
    shared: &Shared,
    listener: &Listener,
    stream: &tokio::net::TcpStream,
    peer: SocketAddr,
    crowded: Crowded,
) {
    shared.counters.connections_crowded.add();
    let reply: &[u8] = match crowded {
        Crowded::Server => b"421 4.3.2 Too many connections, try again later\r\n",
        Crowded::Source => b"421 4.7.0 Too many connections from your address\r\n",
    };
    let told = match stream.try_write(reply) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(_) => false,
    };
    tracing::info!(source = %peer.ip(), listener = listener.name, ?crowded, told, "turned away");
}

/// Waits for the sessions that are under way, and cuts off those that take too long.
pub(super) async fn end(mut accepting: JoinSet<()>) {
    let ended = async { while accepting.join_next().await.is_some() {} };
    if timeout(SESSIONS_END_WITHIN, ended).await.is_err() {
        tracing::warn!("sessions that did not end in time were cut off");
        accepting.shutdown().await;
    }
}
