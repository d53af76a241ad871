//! The edge daemon, put together: attach, restore the lists, answer on the control socket.

use std::{os::unix::fs::DirBuilderExt, path::Path};

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use relay_common::entry::{List, Scope};
use relay_core::ban::{BanPolicy, caps::CapSettings, guardrails::Protected};
use tokio::runtime::Runtime;

use super::{
    clock, daemon,
    filter::{Filter, MapSizes},
    kernel::{DropLog, KernelFilter, KernelSettings, detach_left_behind},
    left_behind,
    memory::MemoryFilter,
    protected, server,
    state::{Edge, EdgeSettings},
};
use crate::{
    config::{self, Config, Enforce},
    control::{
        peer::Access,
        server::{ControlSocket, Limits},
    },
    relay::privileges::Identity,
    run::{StopSignals, end_with_supervisor, notify},
};

/// Runs the edge until SIGTERM or SIGINT. With `detach_on_exit` it takes the filter off the
/// interface at the end; without, the filter goes on by itself until the next start.
///
/// # Errors
/// It cannot start, with one sentence why; nothing that it attached stays attached. A filter that
/// an earlier process left at work stays, so that a start which fails opens no gap.
pub fn serve(config: &Config, detach_on_exit: bool) -> anyhow::Result<()> {
    end_with_supervisor(Signal::SIGKILL)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    // Before the filter is touched: a signal during the start must not leave it behind.
    let mut stop = runtime.block_on(async { StopSignals::new() })?;
    let relay = Identity::find(&config.server.user, &config.server.group)?;
    make_folder(&config.server.run_dir, 0o755)?;
    make_folder(&config.server.state_dir, 0o755)?;
    let edge_dir = config.server.edge_dir();
    make_folder(&edge_dir, 0o700)?;
    // As above: another edge that is running must not be disturbed.
    let socket = ControlSocket::bind(&config.server.edge_socket(), Some(relay.gid.as_raw()))?;
    let served = Served { config, runtime: &runtime, stop: &mut stop, socket, relay };
    match config.filter.enforce {
        Enforce::Kernel => in_the_kernel(served, &edge_dir, detach_on_exit)?,
        Enforce::Userspace => {
            tracing::warn!("no kernel filter: denied sources are refused by the relay at accept");
            left_behind::end(&edge_dir, None)?;
            served.run(MemoryFilter::new(sizes(config)))?;
        }
    }
    Ok(())
}

fn in_the_kernel(served: Served<'_>, edge_dir: &Path, detach_on_exit: bool) -> anyhow::Result<()> {
    let settings = kernel_settings(served.config)?;
    left_behind::note(edge_dir, &settings)?;
    let filter = KernelFilter::open(&settings)?;
    let attachment = filter.attachment();
    tracing::info!(
        interface = attachment.interface, mode = %attachment.mode,
        program_id = attachment.program_id, "filter attached"
    );
    let adopted = filter.adopted();
    let outcome = left_behind::end(edge_dir, Some(&settings)).and_then(|()| {
        let program_id = attachment.program_id.filter(|_| settings.log_drops);
        let _until_the_end = program_id.map(DropLog::of).transpose()?;
        served.run(filter)
    });
    match outcome {
        Ok(filter) if detach_on_exit => {
            filter.detach().context("taking the filter off the interface")?;
            tracing::info!("filter detached");
        }
        Ok(_) => tracing::warn!("the filter stays attached, and its entries in force"),
        Err(error) => {
            if !adopted {
                detach_left_behind(&settings.interface, &settings.pin_dir)?;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// What serving takes besides the filter.
struct Served<'a> {
    config: &'a Config,
    runtime: &'a Runtime,
    stop: &'a mut StopSignals,
    socket: ControlSocket,
    relay: Identity,
}

impl Served<'_> {
    /// Serves with this filter; gives it back at the end, still in force.
    fn run<F: Filter + 'static>(self, filter: F) -> anyhow::Result<F> {
        let Self { config, runtime, stop, socket, relay } = self;
        let database = config.server.edge_dir().join("lists.db");
        let settings = EdgeSettings {
            bans: ban_policy(&config.ban),
            feeds: config.feeds.clone(),
            ..EdgeSettings::new(database.clone())
        };
        let configured = protected_by(config);
        let read_protected = Box::new(move || protected::read(&configured));
        let edge = Edge::open(settings, filter, Box::new(clock::system), read_protected)
            .with_context(|| format!("opening the lists in {}", database.display()))?;
        let owner = daemon::start(edge).context("starting the owner of the lists")?;
        let outcome = runtime.block_on(async {
            let handle = owner.handle();
            for (list, prefixes, scope) in [
                (List::Allow, &config.filter.allow, Scope::ALL),
                (List::Deny, &config.filter.deny, Scope::SMTP),
            ] {
                let rows = prefixes.iter().map(|&prefix| (prefix, scope)).collect();
                let done = handle.replace(list, "config", rows).await;
                done.with_context(|| format!("filter.{list}"))?;
            }
            let access = Access::new(Some(relay.gid.as_raw()));
            let router =
                server::holding_relay_to_its_own(server::router(handle), relay.uid.as_raw());
            notify::Starter::reach().ready();
            socket
                .serve(router, access, Limits::default(), stop.recv())
                .await
                .context("serving the control socket")
        });
        let Some(filter) = owner.stop() else { bail!("the owner of the lists has panicked") };
        outcome.map(|()| filter)
    }
}

fn make_folder(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("making the folder {}", path.display()))
}

fn sizes(config: &Config) -> MapSizes {
    let entries = config.filter.max_entries;
    // The kernel makes no table without room.
    let feeds = |list| u32::try_from(config.feed_entries_max(list)).unwrap_or(u32::MAX).max(1);
    MapSizes {
        allow: entries,
        deny: entries,
        feeds_allow: feeds(List::Allow),
        feeds_deny: feeds(List::Deny),
    }
}

fn kernel_settings(config: &Config) -> anyhow::Result<KernelSettings> {
    let interface = match &config.filter.interface {
        Some(interface) => interface.clone(),
        None => super::route::default_interface()?,
    };
    Ok(KernelSettings {
        interface,
        generic_permitted: config.filter.allow_generic,
        pin_dir: config.filter.pin_dir.clone(),
        sizes: sizes(config),
        log_drops: config.filter.log_drops,
    })
}

/// The ban policy as the configuration has it; also what the relay's ledger works by.
pub fn ban_policy(ban: &config::Ban) -> BanPolicy {
    let live_max = usize::try_from(ban.max_live).unwrap_or(usize::MAX);
    BanPolicy {
        threshold: ban.threshold,
        window: ban.window,
        ladder: ban.ladder.clone(),
        scope: ban.scope,
        caps: CapSettings { new_per_minute_max: ban.max_new_per_minute, live_max },
        ..BanPolicy::default()
    }
}

fn protected_by(config: &Config) -> Protected {
    Protected {
        inside_hosts: config.inside_addresses(),
        resolvers: config.dns.servers.iter().map(std::net::SocketAddr::ip).collect(),
        ..Protected::default()
    }
}
