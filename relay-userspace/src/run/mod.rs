//! `postern run`: starts the edge, then the relay, and keeps both going.
//!
//! The edge comes first and goes last, so that no mail is taken while the filter is not there. A
//! relay that crashes is started again and the kernel filter stays; an edge that crashes is
//! started again and adopts what it had pinned.

mod asked;
mod backoff;
mod daemon;
pub mod notify;
pub mod summary;

pub use daemon::{ASKED_TO_STOP, end_with_supervisor, is_supervised};

use std::path::PathBuf;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::asked::{Asked, Order};
use self::daemon::Daemon;
use crate::config::Config;
use crate::control::api::{Code, Problem, RunStopping};
use crate::edge::left_behind;

/// What `postern run` was asked to do.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The file the configuration came from, passed on to the daemons; `None`: the embedded one.
    pub config_file: Option<PathBuf>,
    /// `--interface` and `--filter`, passed on to the edge as they were typed.
    pub edge_arguments: Vec<String>,
    /// `--filter`, passed on to the relay.
    pub relay_arguments: Vec<String>,
    /// Leave the filter attached at the end.
    pub keep_filter: bool,
}

/// SIGINT and SIGTERM, either of which ends a daemon in order.
#[derive(Debug)]
pub struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// From here on neither signal kills the process.
    ///
    /// # Errors
    /// The runtime cannot listen for signals.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
        })
    }

    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs until SIGINT or SIGTERM, until `postern edge stop`, or until a daemon does not come up.
/// `on_ready` is called once both serve.
///
/// To be called on the process's main thread: the daemons are told to end when the thread that
/// started them does (PR_SET_PDEATHSIG, prctl(2)).
///
/// # Errors
/// A daemon did not come up; it has said why by then. Nothing is left running, and nothing attached
/// that was not before.
pub async fn run(
    config: &Config,
    options: &RunOptions,
    on_ready: impl AsyncFnOnce(),
) -> anyhow::Result<()> {
    let mut stop = StopSignals::new()?;
    std::fs::create_dir_all(&config.server.run_dir)
        .with_context(|| format!("making the folder {}", config.server.run_dir.display()))?;
    let edge_dir = config.server.edge_dir();
    let stood = left_behind::any(&edge_dir)?;
    let mut edge = Daemon::edge(config, options);
    let mut relay = Daemon::relay(config, options);
    let mut asked = Asked::open(config, edge.serves());
    let outcome = tokio::select! {
        outcome = keep_running(&mut edge, &mut relay, on_ready) => outcome,
        () = stop.recv() => {
            tracing::info!("stopping");
            Ok(Ending::Signal)
        }
        order = asked.recv() => Ok(Ending::Asked(order)),
    };
    let outcome = match outcome {
        Ok(Ending::Asked(order)) => {
            edge.kill().await;
            stop_without_edge(config, order).map(|()| Ending::EdgeAsked)
        }
        outcome => outcome,
    };
    relay.stop().await;
    let still_stands = || left_behind::any(&edge_dir).unwrap_or(true);
    let leaves_what_stood = outcome.is_err() && stood && still_stands();
    if leaves_what_stood {
        // An edge that ends in order takes the filter off.
        edge.kill().await;
        tracing::warn!(
            "the filter that stood before stays in force; `postern edge stop --detach` takes it off"
        );
    }
    edge.stop().await;
    asked.close().await;
    // The edge takes its filter off by itself, unless it was killed or was just not running. A
    // start that failed leaves what it found: a mistake in the configuration opens no gate. What
    // `postern edge stop` left is wanted.
    let ends_filter = match outcome {
        Ok(Ending::Signal) => !options.keep_filter,
        Ok(Ending::EdgeAsked | Ending::Asked(_)) => false,
        Err(_) => !leaves_what_stood,
    };
    let ended = if ends_filter { left_behind::end(&edge_dir, None).map(drop) } else { Ok(()) };
    outcome.and(ended)
}

/// Why a run ends in order.
enum Ending {
    Signal,
    /// By `postern edge stop`, which has also said what becomes of the filter.
    EdgeAsked,
    /// By `postern edge stop`, while there was no edge that it could ask.
    Asked(Order),
}

/// Does with the filter that an edge left what is asked for, and says what that came to.
fn stop_without_edge(config: &Config, order: Order) -> anyhow::Result<()> {
    let Order { request, reply } = order;
    tracing::info!(detach = request.detach, "stopping, as asked for while no edge was running");
    let edge_dir = config.server.edge_dir();
    let done = (|| {
        let detached = if request.detach {
            let ended = left_behind::end_all(&edge_dir, &config.filter.pin_dir)?;
            ended.into_iter().map(|ended| ended.kept_in).collect()
        } else {
            Vec::new()
        };
        let stays = left_behind::any(&edge_dir)?;
        anyhow::Ok(RunStopping { detached, stays, pid: std::process::id() })
    })();
    let told = match &done {
        Ok(stopping) => Ok(stopping.clone()),
        Err(error) => {
            let message = format!("{error:#}; `postern run` ends all the same");
            Err(Problem::new(Code::Filter, message))
        }
    };
    // Whoever has gone wants no answer.
    drop(reply.send(told));
    done.map(drop)
}

async fn keep_running(
    edge: &mut Daemon,
    relay: &mut Daemon,
    on_ready: impl AsyncFnOnce(),
) -> anyhow::Result<Ending> {
    edge.start().await?;
    relay.start().await?;
    on_ready().await;
    // Together: a start under way is waited for while the other daemon goes on.
    tokio::select! {
        () = edge.keep_up() => {}
        () = relay.keep_up() => {}
    }
    tracing::info!("stopping: the edge was asked to");
    Ok(Ending::EdgeAsked)
}
