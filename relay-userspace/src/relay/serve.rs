//! The relay daemon, put together: bind as root, become nobody in particular, then serve.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use nix::sys::signal::Signal;
use relay_core::policy::recipient::ExemptRecipients;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    accepting,
    admission::{Admission, AdmissionLimits},
    bans::{self, Bans},
    control,
    counters::Counters,
    descriptors, feeds,
    known::Known,
    listener::{self, Bound},
    local::Local,
    never_route::NeverRoute,
    outbound,
    patience::EdgePatience,
    privileges::Identity,
    state::{self, Files, Lines, Listener, Shared},
};
use crate::{
    auth::Accounts,
    config::{Config, ListenerTls, TlsFiles},
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

/// How long delivery and the rest get to end in order, once all sessions have.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Strangers asked about at once while the relay is busy; each costs a connection to the edge.
const ASKING_MAX: usize = 16;
/// A connection of its own for each question; the edge answers from memory.
const EDGE_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// What was opened while the relay still was root.
struct Opened {
    listeners: Vec<Bound>,
    local: Option<Local>,
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
    let local = config.lmtp.as_ref().map(Local::open).transpose()?;
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
    let starter = notify::Starter::reach();
    Ok(Opened { listeners, local, control, tls, smart_host_password, starter })
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
    let (shared, orders) =
        share(config, files, (&opened.listeners, opened.local.as_ref()), &opened.tls)?;
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
    let sessions = accepting::accept_all(&shared, opened.listeners, opened.local, &stop)?;
    opened.starter.ready();
    tracing::info!(hostname = shared.hostname, "relay ready");
    stop_signals.recv().await;
    tracing::info!("relay stopping");
    stop.cancel();
    accepting::end(sessions).await;
    // The taker of bans ends with the last holder of `shared`, the others by the token.
    drop(shared);
    if timeout(ENDS_WITHIN, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!("cut off what was still under way; the queue has it");
    }
    Ok(())
}

/// Opens the queue once there is room, where there was none at the start.
async fn open_queue(spool: Spool, stop: CancellationToken) {
    stop.run_until_cancelled(spool.keep_trying()).await;
}

pub(super) type Orders = mpsc::Receiver<relay_core::ban::order::BanOrder>;

/// What all sessions share, and the bans that they will order.
pub(super) fn share(
    config: &Config,
    files: &Files,
    (bound, local): (&[Bound], Option<&Local>),
    tls: &ServerTls,
) -> anyhow::Result<(Arc<Shared>, Orders)> {
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
    let spool_settings = SpoolSettings {
        free_bytes_min: config.queue.min_free_bytes,
        files_max: descriptors::message_files(config),
        ..SpoolSettings::default()
    };
    let listeners = config.listeners.iter().enumerate().map(|(index, listener)| {
        let bound = bound.iter().filter(|bound| bound.listener == index);
        Arc::new(Listener::new(config, listener, bound.map(|bound| bound.address).collect()))
    });
    let shared = Shared {
        hostname: config.server.hostname.clone(),
        started: SystemTime::now(),
        listeners: listeners.collect(),
        local: local.map(|local| Arc::new(Listener::local(config, local))),
        domains,
        postmaster,
        never_route: NeverRoute::open(&files.never_route, &config.relay.never_route)?,
        exempt,
        resolver,
        dnsbl,
        accounts: Accounts::open(&files.accounts)?,
        spool: Spool::open_or_wait(&files.queue, spool_settings)?,
        tls: Arc::clone(&tls.config),
        bans,
        edge: Client::edge(&config.server.run_dir).with_timeout(EDGE_ANSWERS_WITHIN),
        patience: EdgePatience::default(),
        shows_account: config.smtp.show_account,
        filter_here: state::filters_here(config),
        known: Known::of(config),
        pregreet_wait: config.limits.pregreet_wait,
        handshake_timeout: config.limits.handshake_timeout,
        admission: Admission::new(AdmissionLimits {
            connections_max: config.limits.connections,
            reserved: config.limits.connections * usize::from(config.limits.reserve_percent) / 100,
            per_source_max: config.limits.connections_per_source,
        }),
        asking: Arc::new(Semaphore::new(ASKING_MAX)),
        lines: Lines::default(),
        counters,
        notices: notices(config, tls),
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
    if config.listeners.iter().all(|listener| listener.tls == ListenerTls::Off) {
        notices.push("no listener offers TLS".to_owned());
    }
    notices
}
