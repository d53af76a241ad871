//! Accepts connections: one task for each bound address, one for each session.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::sys::socket::{MsgFlags, send};
use relay_core::{prefix::canonical_ip, smtp::reply::Reply};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Caller, Crowded, Ticket},
    connection,
    door::{self, Door, Guest, Socket},
    listener::Bound,
    local::Local,
    source::is_trusted,
    state::{Listener, Shared},
};

/// How long sessions get to end in order; and of that, how long the message that each has under way
/// gets to come to its end.
const SESSIONS_END_WITHIN: Duration = Duration::from_secs(10);
pub(super) const MESSAGES_END_WITHIN: Duration = Duration::from_secs(8);

/// Accepts on every bound address and on the local socket, each in a task of its own.
pub(super) fn accept_all(
    shared: &Arc<Shared>,
    bound: Vec<Bound>,
    local: Option<Local>,
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    for bound in bound {
        let door = TcpListener::from_std(bound.socket).context("serving a listener")?;
        let listener = Arc::clone(&shared.listeners[bound.listener]);
        tasks.spawn(accept(Arc::clone(shared), listener, Door::Network(door), stop.clone()));
    }
    if let (Some(local), Some(listener)) = (local, &shared.local) {
        let socket = local.socket.serve().context("serving lmtp.socket")?;
        let door = Door::Local { socket, file: local.socket };
        tasks.spawn(accept(Arc::clone(shared), Arc::clone(listener), door, stop.clone()));
    }
    Ok(tasks)
}

/// Takes connections until told to stop, then waits for their sessions.
async fn accept(shared: Arc<Shared>, listener: Arc<Listener>, door: Door, stop: CancellationToken) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = door.accept() => match accepted {
                Ok(Some(guest)) => session(&shared, &listener, guest, &stop, &mut sessions),
                Ok(None) => {}
                Err(error) => {
                    // Out of descriptors, most likely: they come back as sessions end.
                    if let Some(left_out) = shared.lines.accept.permit(Instant::now()) {
                        tracing::error!(listener = listener.name, %error, left_out, "accept");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            // Ended ones are taken out, so that the set is bounded by the admission.
            Some(ended) = sessions.join_next() => report(&shared, ended),
        }
    }
    drop(door);
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

/// Begins a session, where there is a place for it.
fn session(
    shared: &Arc<Shared>,
    listener: &Arc<Listener>,
    guest: Guest,
    stop: &CancellationToken,
    sessions: &mut JoinSet<()>,
) {
    let (peer, port) = (guest.peer, listener.port_of_lists(guest.local.port()));
    let caller = if guest.user.is_some() {
        Caller::Known
    } else if listener.proxies.lookup(canonical_ip(peer.ip())).is_some() {
        Caller::Ours
    } else {
        shared.known.caller(listener, peer.ip())
    };
    let (shared, listener, stop) = (Arc::clone(shared), Arc::clone(listener), stop.clone());
    match shared.admission.admit(peer.ip(), caller) {
        Ok(ticket) => {
            sessions.spawn(async move {
                connection::serve(shared, listener, Arrival { guest, ticket }, stop).await;
            });
        }
        // Perhaps it is on the allow list; but of a flood only some are asked about at a time.
        Err(Crowded::Reserved)
            if let Ok(asking) = Arc::clone(&shared.asking).try_acquire_owned() =>
        {
            sessions.spawn(async move {
                let trusted = is_trusted(&shared, peer.ip(), port).await;
                drop(asking);
                let admitted = match trusted {
                    true => shared.admission.admit(peer.ip(), Caller::Known),
                    false => Err(Crowded::Reserved),
                };
                match admitted {
                    Ok(ticket) => {
                        let arrival = Arrival { guest, ticket };
                        connection::serve(shared, listener, arrival, stop).await;
                    }
                    Err(crowded) => {
                        turn_away(&shared, &listener, &guest.stream, peer.ip(), crowded)
                    }
                }
            });
        }
        Err(crowded) => turn_away(&shared, &listener, &guest.stream, peer.ip(), crowded),
    }
}

/// Counts a connection as that of another source, which a host of ours names.
///
/// # Errors
/// That source would not have been admitted.
pub(super) async fn pass_on(
    shared: &Shared,
    listener: &Listener,
    ticket: &mut Ticket,
    source: IpAddr,
) -> Result<(), Crowded> {
    let passed = ticket.pass_on(source, shared.known.caller(listener, source));
    if passed == Err(Crowded::Reserved)
        && let Ok(_asking) = shared.asking.try_acquire()
        && is_trusted(shared, source, listener.port_of_part()).await
    {
        return ticket.pass_on(source, Caller::Known);
    }
    passed
}

/// A connection that has its place.
#[derive(Debug)]
pub(super) struct Arrival {
    pub guest: Guest,
    pub ticket: Ticket,
}

/// A single write that need not succeed: a crowd must not cost more than its connections.
pub(super) fn turn_away(
    shared: &Shared,
    listener: &Listener,
    stream: &Socket,
    source: IpAddr,
    crowded: Crowded,
) {
    let reply = crowded_reply(shared, crowded).to_string();
    // Straight to the kernel: of a new connection the runtime may not know yet that it can be
    // written to. Where TLS is due, nobody could read it.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let told =
        !listener.implicit_tls && send(door::descriptor(stream), reply.as_bytes(), flags).is_ok();
    if let Some(left_out) = shared.lines.turned_away.permit(Instant::now()) {
        let listener = &listener.name;
        tracing::info!(%source, listener, ?crowded, told, left_out, "turned away");
    }
}

/// Counts one that is turned away, and says why.
pub(super) fn crowded_reply(shared: &Shared, crowded: Crowded) -> Reply {
    let counters = &shared.counters;
    counters.connections_crowded.add();
    match crowded {
        Crowded::Server => {
            counters.crowded_server.add();
            Reply::new(421, (4, 3, 2), "Too many connections, try again later")
        }
        Crowded::Reserved => {
            counters.crowded_reserved.add();
            Reply::new(421, (4, 7, 0), "Too many connections, try again later")
        }
        Crowded::Source => {
            counters.crowded_source.add();
            Reply::new(421, (4, 7, 0), "Too many connections from your address")
        }
    }
}

/// Waits for the sessions that are under way, and cuts off those that take too long.
pub(super) async fn end(mut accepting: JoinSet<()>) {
    let ended = async { while accepting.join_next().await.is_some() {} };
    if timeout(SESSIONS_END_WITHIN, ended).await.is_err() {
        tracing::warn!("sessions that did not end in time were cut off");
        accepting.shutdown().await;
    }
}
