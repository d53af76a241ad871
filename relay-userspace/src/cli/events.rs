//! `events`: packets that were dropped, limited or observed, one a line.

use std::io::{self, Write};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::signal::unix::{SignalKind, signal};

use super::args::EventsArgs;
use super::session::{Exit, Failure, Session};
use crate::control::api::*;

/// Events before the first one that is followed, unless something else is asked for.
const LAST_BEFORE_FOLLOWING: usize = 10;
/// How soon it is seen that nobody reads any more, while nothing happens.
const LOOK_UP_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn execute(args: EventsArgs, on: &mut Session<'_>) -> Result<Exit, Failure> {
    let usual = if args.follow { LAST_BEFORE_FOLLOWING } else { EVENTS_KEPT };
    let query = EventsQuery { last: args.last.unwrap_or(usual), follow: args.follow };
    let told = on.edge.get::<Top>("/v1/top").await?.told;
    if !told {
        writeln!(on.err, "the filter tells of no packets (set filter.events_per_second)")?;
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let edge = on.edge.clone();
    let (out, json) = (&mut *on.out, on.json);
    let print = async {
        edge.lines("/v1/events", &query, |line: EventLine| {
            print(&line, json, out)?;
            // Whoever follows wants to see it now; the end is flushed by itself.
            if query.follow { out.flush() } else { Ok(()) }.map_err(Failure::Io)
        })
        .await
    };
    tokio::select! {
        done = print => done?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        () = nobody_reads() => {}
    }
    Ok(Exit::Done)
}

fn print(line: &EventLine, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, line)?;
        return writeln!(out);
    }
    let event = match line {
        EventLine::Lost { lost } => return writeln!(out, "{lost} events lost: too many to print"),
        EventLine::Packet(event) => event,
    };
    let PacketEvent { time, fate, address, port, rule, .. } = event;
    write!(out, "{time} {fate:<8} {address} port {port} by {rule}")?;
    match (&event.reason, event.prefix) {
        (Some(reason), Some(prefix)) => writeln!(out, " ({reason}, {prefix})"),
        (Some(what), None) => writeln!(out, " ({what})"),
        (None, Some(prefix)) => writeln!(out, " ({prefix})"),
        (None, None) => writeln!(out),
    }
}

/// Waits until standard output is a pipe that was closed at its other end.
async fn nobody_reads() {
    loop {
        tokio::time::sleep(LOOK_UP_EVERY).await;
        let out = io::stdout();
        let mut out = [PollFd::new(std::os::fd::AsFd::as_fd(&out), PollFlags::empty())];
        let polled = poll(&mut out, PollTimeout::ZERO);
        let closed = out[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLERR));
        if polled.is_ok() && closed {
            return;
        }
    }
}
