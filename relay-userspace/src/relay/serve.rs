//! The relay daemon, put together: bind as root, become nobody in particular, then serve.

use std::{
    fs, io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use nix::sys::signal::Signal;
use relay_core::policy::recipient::ExemptRecipients;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Admission, Crowded},
    bans::{self, Bans},
    connection, control,
    counters::Counters,
    descriptors, feeds,
    listener::{self, Bound},
    never_route::NeverRoute,
    outbound,
    privileges::Identity,
    state::{self, Files, Listener, Shared},
};
use crate::{
    auth::Accounts,
    config::{Config, Offer, TlsFiles},
    control::{
        client::Client,
        peer::Access,
        server::{ControlSocket, Limits},
    },
    delivery::Delivery,
    dns::{DnsblService, DnsblSettings, Resolver, ResolverSettings},
    edge::serve::ban_policy,
    queue::{Spool, SpoolSettings},
    run::{StopSignals, end_with_supervisor, notify},
    tls::{self, ServerTls},
};

/// How long sessions get to end in order.
const SESSIONS_END_WITHIN: Duration = Duration::from_secs(10);
/// A connection of its own for each question; the edge answers from memory.
const EDGE_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What was opened while the relay still was root.
struct Opened {
    listeners: Vec<Bound>,
    control: ControlSocket,
    tls: ServerTls,
    smart_host_password: Option<String>,
    starter: notify::Starter,
}

/// Runs the relay until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start, with one sentence why.
pub fn serve(config: &Config) -> anyhow::Result<()> {
    end_with_supervisor(Signal::SIGTERM)?;
    let identity = Identity::find(&config.server.user, &config.server.group)?;
    let files = Files::of(config);
    let opened = open_as_root(config, &files, identity)?;
    identity.assume()?;
    // A change of user cleared it (prctl(2)).
    end_with_supervisor(Signal::SIGTERM)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(run(config, &files, opened, identity))
}

fn open_as_root(config: &Config, files: &Files, identity: Identity) -> anyhow::Result<Opened> {
    descriptors::make_room(descriptors::needed(config))?;
    fs::create_dir_all(&config.server.run_dir)
        .with_context(|| format!("making the folder {}", config.server.run_dir.display()))?;
    identity.own_folder(&config.server.relay_dir())?;
    identity.own_folder(&files.queue)?;
    identity.own_folder(&files.tls)?;
    identity.own_folder(&files.feeds)?;
    let listeners = listener::bind_all(&config.listeners)?;
    let control = ControlSocket::bind(&config.server.relay_socket(), Some(identity.gid.as_raw()))?;
    let tls = match &config.tls.files {
        Some((certificate, key)) => {
            tls::load(certificate, key).context("tls.certificate, tls.key")?
        }
        None => tls::load_or_make(&files.tls, &config.server.hostname, SystemTime::now())?,
    };
    let smart_host_password = match &config.relay.smart_host_account {
        Some((_, file)) => Some(read_password(file)?),
        None => None,
    };
    Ok(Opened { listeners, control, tls, smart_host_password, starter: notify::Starter::reach() })
}

fn read_password(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("relay.smart_host_password_file {}", file.display()))?;
    let password = text.trim_end_matches(['\r', '\n']).to_owned();
    anyhow::ensure!(
        !password.is_empty() && !password.contains(['\n', '\0']),
        "relay.smart_host_password_file {}: write the password alone, in one line",
        file.display()
    );
    Ok(password)
}

async fn run(
    config: &Config,
    files: &Files,
    opened: Opened,
    identity: Identity,
) -> anyhow::Result<()> {
    let mut stop_signals = StopSignals::new()?;
    let stop = CancellationToken::new();
    let (shared, orders) = share(config, files, &opened)?;
    let delivery =
        outbound::settings(config, &shared, &opened.listeners, opened.smart_host_password)?;
    let mut tasks = JoinSet::new();
    if let Some(lists) = &shared.dnsbl {
        // A list counts only once it has passed its tests: first mail waits for that.
        lists.test_all().await;
        tasks.spawn(Arc::clone(lists).watch(stop.clone()));
    }
    tasks.spawn(opened.tls.watch(stop.clone()));
    tasks.spawn(open_queue(shared.spool.clone(), stop.clone()));
    tasks.spawn(Delivery::run(shared.spool.clone(), delivery, stop.clone()));
    if let Some(feeds) = feeds::run::Feeds::of(config, files, &shared) {
        tasks.spawn(feeds::run(feeds, feeds::run::ASK_EVERY, stop.clone()));
    }
    tasks.spawn(bans::carry_out(orders, shared.edge.clone(), Arc::clone(&shared.counters)));
    let router = control::router(Arc::clone(&shared));
    let access = Access::new(Some(identity.gid.as_raw()));
    let control_stop = stop.clone();
    tasks.spawn(async move {
        let ended =
            opened.control.serve(router, access, Limits::default(), control_stop.cancelled());
        if let Err(error) = ended.await {
            tracing::error!(%error, "the control socket cannot be served");
        }
    });
    let sessions = accept_all(&shared, opened.listeners, &stop)?;
    opened.starter.ready();
    tracing::info!(hostname = shared.hostname, "relay ready");
    stop_signals.recv().await;
    tracing::info!("relay stopping");
    stop.cancel();
    end_sessions(sessions).await;
    // The taker of bans ends with the last holder of `shared`, the others by the token.
    drop(shared);
    if timeout(SESSIONS_END_WITHIN * 2, async { while tasks.join_next().await.is_some() {} })
        .await
        .is_err()
    {
        tracing::warn!("cut off what was still under way; the queue has it");
    }
    Ok(())
}

/// Opens the queue once there is room, where there was none at the start.
async fn open_queue(spool: Spool, stop: CancellationToken) {
    stop.run_until_cancelled(spool.keep_trying()).await;
}

type Orders = mpsc::Receiver<relay_core::ban::order::BanOrder>;

fn share(config: &Config, files: &Files, opened: &Opened) -> anyhow::Result<(Arc<Shared>, Orders)> {
    let counters = Arc::new(Counters::default());
    let (bans, orders) = Bans::new(ban_policy(&config.ban), Arc::clone(&counters));
    let resolver = Resolver::new(&ResolverSettings {
        servers: config.dns.servers.clone(),
        timeout: config.dns.timeout.min(ResolverSettings::default().timeout),
        deadline: config.dns.timeout,
        ..ResolverSettings::default()
    })
    .context("dns.servers")?;
    let zones = state::block_lists(config)?;
    let dnsbl = (!zones.is_empty()).then(|| {
        let settings =
            DnsblSettings { zones, deadline: config.dns.timeout, ..DnsblSettings::default() };
        Arc::new(DnsblService::new(resolver.clone(), settings))
    });
    let (domains, postmaster) = state::domain_table(config)?;
    let exempt = ExemptRecipients::from_patterns(&config.relay.dnsbl_exempt_recipients)
        .context("relay.dnsbl_exempt_recipients")?;
    let spool_settings =
        SpoolSettings { free_bytes_min: config.queue.min_free_bytes, ..SpoolSettings::default() };
    let listeners = config.listeners.iter().enumerate().map(|(index, listener)| {
        let bound = opened.listeners.iter().filter(|bound| bound.listener == index);
        Arc::new(Listener::new(config, listener, bound.map(|bound| bound.address).collect()))
    });
    let shared = Shared {
        hostname: config.server.hostname.clone(),
        started: SystemTime::now(),
        listeners: listeners.collect(),
        domains,
        postmaster,
        never_route: NeverRoute::open(&files.never_route, &config.relay.never_route)?,
        exempt,
        resolver,
        dnsbl,
        accounts: Accounts::open(&files.accounts)?,
        spool: Spool::open_or_wait(&files.queue, spool_settings)?,
        tls: Arc::clone(&opened.tls.config),
        bans,
        edge: Client::edge(&config.server.run_dir).with_timeout(EDGE_ANSWERS_WITHIN),
        filter_here: state::filters_here(config),
        admission: Admission::new(config.limits.connections, config.limits.connections_per_source),
        counters,
        notices: notices(config, &opened.tls),
    };
    Ok((Arc::new(shared), orders))
}

/// What an administrator should know and the configuration alone shows.
fn notices(config: &Config, tls: &ServerTls) -> Vec<String> {
    let mut notices = Vec::new();
    if config.relay.smart_host.is_none() {
        notices.push(
            "no relay.smart_host: mail for foreign domains, reports to senders included, waits in \
             the queue"
                .to_owned(),
        );
    }
    if matches!(config.tls, TlsFiles { files: None }) {
        notices.push("the certificate is self-signed; name your own as tls.certificate".to_owned());
    }
    notices.extend(tls.certificate.warning(SystemTime::now()));
    for listener in config.listeners.iter().filter(|listener| listener.open_relay) {
        notices.push(format!("listener {} may relay for everyone, as configured", listener.name));
    }
    if config.listeners.iter().all(|listener| listener.tls == Offer::Off) {
        notices.push("no listener offers TLS".to_owned());
    }
    notices
}

/// Accepts on every bound address, each in a task of its own.
fn accept_all(
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

async fn end_sessions(mut accepting: JoinSet<()>) {
    let ended = async { while accepting.join_next().await.is_some() {} };
    if timeout(SESSIONS_END_WITHIN, ended).await.is_err() {
        tracing::warn!("sessions that did not end in time were cut off");
        accepting.shutdown().await;
    }
}
