//! The edge daemon, put together: attach, restore the lists, answer on the control socket.

use std::{os::unix::fs::DirBuilderExt, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use relay_common::entry::{List, Scope};
use relay_core::ban::{BanPolicy, caps::CapSettings, guardrails::Protected};
use tokio::{runtime::Runtime, sync::mpsc, task::JoinHandle};

use super::{
    clock, daemon,
    events::{hub::Hub, reader, routes},
    filter::{Filter, MapSizes, Modes},
    heap,
    kernel::{DropLog, Interface, KernelFilter, KernelSettings, detach_left_behind},
    left_behind,
    lines::Line,
    links,
    memory::MemoryFilter,
    protected, server, sshd,
    state::{Edge, EdgeSettings},
    stop::{self, Ending},
    store::{LISTS, Store},
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

/// Runs the edge until SIGTERM or SIGINT, or until `postern edge stop`. With `detach_on_exit` a
/// signal takes the filter off the interfaces; without, it goes on by itself until the next start.
///
/// # Errors
/// It cannot start, with one sentence why; nothing that it attached stays attached. A filter that
/// an earlier process left at work stays, so that a start which fails opens no gap.
pub fn serve(config: &Config, detach_on_exit: bool) -> anyhow::Result<Ending> {
    end_with_supervisor(Signal::SIGKILL)?;
    heap::give_back_large_blocks();
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
        Enforce::Kernel => in_the_kernel(served, &edge_dir, detach_on_exit),
        Enforce::Userspace => {
            tracing::warn!("no kernel filter: denied sources are refused by the relay at accept");
            if config.filter.syn_limit.is_some() {
                tracing::warn!("filter.syn_rate is not held: only the kernel filter can");
            }
            end_others(&edge_dir, None)?;
            let (edge, ending) = served.run(MemoryFilter::new(sizes(config)))?;
            edge.end(false)?;
            Ok(ending)
        }
    }
}

fn in_the_kernel(
    served: Served<'_>,
    edge_dir: &Path,
    detach_on_exit: bool,
) -> anyhow::Result<Ending> {
    let settings = kernel_settings(served.config)?;
    let filter = KernelFilter::open(&settings)?;
    let (adopts, program_id) = (filter.adopts(), filter.program_id());
    // Noted only now that the place is known to be nobody else's, and before anything is attached.
    let noted = left_behind::note(edge_dir, &settings.pin_dir);
    let ended = noted.and_then(|()| end_others(edge_dir, Some(&settings.pin_dir)));
    let outcome = ended.and_then(|()| {
        left_behind::keep_of_another_layout(edge_dir, &settings.pin_dir);
        let _until_the_end = settings.log_drops.then(|| DropLog::of(program_id)).transpose()?;
        served.run(filter)
    });
    let (edge, ending) = match outcome {
        Ok(served) => served,
        Err(error) => {
            if !adopts {
                detach_left_behind(&settings.pin_dir)?;
            }
            return Err(error);
        }
    };
    let detaches = ending == Ending::Signal && detach_on_exit;
    edge.end(detaches).context("taking the filter off the interface")?;
    if detaches {
        tracing::info!("filter detached");
    } else if ending != (Ending::Asked { detached: true }) {
        tracing::warn!("the filter stays attached, and its entries in force");
    }
    Ok(ending)
}

/// Ends the filters that were left elsewhere; not for a start that then fails, as its lists cannot be
/// read.
fn end_others(edge_dir: &Path, but: Option<&Path>) -> anyhow::Result<()> {
    let lists = edge_dir.join(LISTS);
    Store::open(&lists).with_context(|| format!("opening the lists in {}", lists.display()))?;
    left_behind::end(edge_dir, but).map(drop)
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
    /// Serves with this filter; gives back the edge at the end, its filter still in force unless
    /// somebody asked for it to be taken off.
    fn run<F: Filter + 'static>(self, mut filter: F) -> anyhow::Result<(Edge<F>, Ending)> {
        let Self { config, runtime, stop, socket, relay } = self;
        let settings = EdgeSettings {
            bans: ban_policy(&config.ban),
            observe_bans: config.ban.observe,
            make_room: config.ban.make_room,
            modes: modes(&config.filter),
            rows: configured_rows(&config.filter),
            feeds: config.feeds.clone(),
            ..EdgeSettings::new(config.server.edge_dir().join(LISTS))
        };
        if settings.modes.observes {
            tracing::warn!("the filter only observes: nothing is dropped (filter.observe)");
        }
        let configured = protected_by(config);
        let told = config.filter.events_per_second > 0;
        let events = filter.events().filter(|_| told);
        let link_events = filter.link_events();
        let read_protected = Box::new(move || protected::read(&configured));
        let (clock, sessions) = (Box::new(clock::system), Box::new(sshd::reader()));
        let edge = Edge::open_sparing_ssh(settings, filter, clock, read_protected, sessions)?;
        let owner = daemon::start(edge).context("starting the owner of the lists")?;
        let links = link_events.map(|events| runtime.spawn(links::watch(events, owner.handle())));
        let hub = Arc::new(Hub::new(events.is_some()));
        let names = ask_names(runtime, owner.handle());
        let reader = events
            .map(|events| reader::start(events, Arc::clone(&hub), names, clock::system))
            .transpose()
            .context("starting the reader of events")?;
        let mut ending = Ending::Signal;
        let outcome = runtime.block_on(async {
            let (ask, mut asked) = mpsc::channel(1);
            let router = server::router(owner.handle())
                .merge(stop::router(owner.handle(), ask))
                .merge(routes::routes(Arc::clone(&hub)));
            let router = server::holding_relay_to_its_own(router, relay.uid.as_raw());
            notify::Starter::reach().ready();
            let until = async {
                tokio::select! {
                    () = stop.recv() => {}
                    asked = asked.recv() => ending = asked.unwrap_or(ending),
                }
                // Answers without an end would hold up everyone's.
                hub.close();
            };
            let access = Access::new(Some(relay.gid.as_raw()));
            let served = socket.serve(router, access, Limits::default(), until).await;
            served.context("serving the control socket")
        });
        drop(reader);
        links.iter().for_each(JoinHandle::abort);
        let Some(edge) = owner.stop() else { bail!("the owner of the lists has panicked") };
        outcome.map(|()| (edge, ending))
    }
}

fn configured_rows(filter: &config::Filter) -> Vec<(List, Vec<Line>)> {
    let of = |prefixes: &[IpNet], scope, observe| -> Vec<Line> {
        let line = |&prefix| Line { observe, ..Line::new(prefix, scope) };
        prefixes.iter().map(line).collect()
    };
    let denied = of(&filter.deny, Scope::SMTP, false).into_iter();
    let denied = denied.chain(of(&filter.deny_observed, Scope::SMTP, true)).collect();
    vec![(List::Allow, of(&filter.allow, Scope::ALL, false)), (List::Deny, denied)]
}

/// How long the reader of events waits for the owner; events without names are better than none.
const NAMES_WITHIN: Duration = Duration::from_secs(1);

fn ask_names(runtime: &Runtime, owner: daemon::EdgeHandle) -> reader::AskNames {
    let runtime = runtime.handle().clone();
    Box::new(move |slots| {
        let names = async { tokio::time::timeout(NAMES_WITHIN, owner.rule_names(slots)).await };
        runtime.block_on(names).ok()?.ok()
    })
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

/// What the configuration switches in the filter.
pub fn modes(filter: &config::Filter) -> Modes {
    Modes {
        observes: filter.observe,
        syn: filter.syn_limit,
        events_per_s: filter.events_per_second,
    }
}

fn kernel_settings(config: &Config) -> anyhow::Result<KernelSettings> {
    let filter = &config.filter;
    let mut interfaces: Vec<Interface> = filter
        .attach
        .iter()
        .map(|attach| Interface {
            name: attach.interface.clone(),
            generic_permitted: attach.allow_generic,
        })
        .collect();
    if interfaces.is_empty() {
        let name = super::route::default_interface()?;
        interfaces.push(Interface { name, generic_permitted: filter.allow_generic });
    }
    Ok(KernelSettings {
        interfaces,
        pin_dir: filter.pin_dir.clone(),
        sizes: sizes(config),
        log_drops: filter.log_drops,
        ..KernelSettings::on("")
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
        proxies: config.upstreams().flat_map(|net| net.hosts()).collect(),
        resolvers: config.dns.servers.iter().map(std::net::SocketAddr::ip).collect(),
        ..Protected::default()
    }
}
