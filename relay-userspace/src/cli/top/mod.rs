//! `top`: what the filter does, as it does it. Figures come from the edge's answers alone
//! ([`model`]), are drawn without a word to the terminal ([`view`]), or printed once ([`plain`]).

mod model;
mod plain;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Sender, channel};

use super::args::TopArgs;
use super::session::{Exit, Failure, Session};
use crate::control::api::{EdgeStats, EdgeStatus, FeedsReport, Top};
use crate::control::client::{Client, ClientError};
use model::{Model, Sample};
use screen::{Screen, Touch};
use view::Look;

/// The status counts every row of the lists, so it is not asked for each time.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// An edge that takes longer than this is shown as one that does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub(super) async fn execute(args: TopArgs, on: &mut Session<'_>) -> Result<Exit, Failure> {
    let asking = Asking {
        edge: on.edge.clone().with_timeout(ANSWER_WITHIN),
        started: Instant::now(),
        status_due: Instant::now(),
        has_feeds: false,
    };
    if args.once {
        return once(args.interval, asking, on).await;
    }
    if on.json {
        return Err(Failure::Said("top draws on a terminal; with --json, add --once".to_owned()));
    }
    if !on.interactive || !io::stdout().is_terminal() {
        let message = "top needs a terminal; `postern top --once` prints one snapshot without";
        return Err(Failure::Said(message.to_owned()));
    }
    watch(args.interval, asking).await
}

/// Two answers, since rates need them.
async fn once(
    interval: Duration,
    mut asking: Asking,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let mut model = Model::default();
    model.update(asking.sample().await?);
    tokio::time::sleep(interval).await;
    model.update(asking.sample().await?);
    on.show(&plain::snapshot(&model), |_, out| plain::print(&model, out))?;
    Ok(Exit::Done)
}

async fn watch(interval: Duration, asking: Asking) -> Result<Exit, Failure> {
    let mut ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let [terminate, interrupt, hangup] = ends.as_mut_slice() else {
        unreachable!("three were made")
    };
    let (sender, mut samples) = channel(1);
    let (touched, mut touches) = channel(16);
    let mut screen = Screen::enter(touched)?;
    let asked = tokio::spawn(keep_asking(interval, asking, sender));
    let look = Look { interval, ascii: !speaks_utf8(|name| std::env::var(name).ok()) };
    let mut model = Model::default();
    let done = loop {
        match screen.draw(|frame| view::render(frame, &model, &look)) {
            Ok(()) => {}
            // The terminal is gone, and with it whoever looked.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break Ok(Exit::Done),
            Err(error) => break Err(error.into()),
        }
        tokio::select! {
            Some(sample) = samples.recv() => match sample {
                Ok(sample) => model.update(sample),
                Err(error) => model.fail(&error),
            },
            touch = touches.recv() => match touch {
                Some(Touch::Redraw) => {}
                Some(Touch::Quit) | None => break Ok(Exit::Done),
            },
            _ = terminate.recv() => break Ok(Exit::Done),
            _ = interrupt.recv() => break Ok(Exit::Done),
            _ = hangup.recv() => break Ok(Exit::Done),
        }
    };
    asked.abort();
    screen.leave()?;
    done
}

/// Whether the terminal is told to expect UTF-8, in the order in which libc looks (locale(7)).
fn speaks_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

async fn keep_asking(
    interval: Duration,
    mut asking: Asking,
    samples: Sender<Result<Sample, ClientError>>,
) {
    let mut due = tokio::time::interval(interval);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if samples.send(asking.sample().await).await.is_err() {
            return;
        }
    }
}

struct Asking {
    edge: Client,
    started: Instant,
    status_due: Instant,
    /// By the latest status.
    has_feeds: bool,
}

impl Asking {
    async fn sample(&mut self) -> Result<Sample, ClientError> {
        let sample = self.ask().await;
        if sample.is_err() {
            // The edge that answers next may be another one.
            self.status_due = Instant::now();
        }
        sample
    }

    async fn ask(&mut self) -> Result<Sample, ClientError> {
        let mut status = None;
        if Instant::now() >= self.status_due {
            let told = self.edge.get::<EdgeStatus>("/v1/status").await?;
            self.has_feeds = !told.feeds.is_empty();
            status = Some(told);
            self.status_due = Instant::now() + STATUS_EVERY;
        }
        let stats = self.edge.get::<EdgeStats>("/v1/stats").await?;
        let at = self.started.elapsed();
        let top = self.edge.get::<Top>("/v1/top").await?;
        let feeds = match self.has_feeds {
            true => self.edge.get::<FeedsReport>("/v1/feeds").await?.feeds,
            false => Vec::new(),
        };
        Ok(Sample { at, status, stats, top, feeds })
    }
}
