//! `postern edge stop`: ends the edge, and says what of its filter goes on.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use super::output::counted;
use super::session::{Exit, Failure, Session};
use crate::control::api::{Code, InterfaceStatus, RunStopping, StopRequest, Stopping};
use crate::control::client::ClientError;

/// How long the process may take to end after it has answered.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long an edge may be neither there nor missed.
const CHANGES_WITHIN: Duration = Duration::from_secs(5);

/// Where neither edge nor `postern run` is there and the filter is to be taken off, says nothing:
/// that is not the end yet.
pub(super) async fn execute(detach: bool, on: &mut Session<'_>) -> Result<Exit, Failure> {
    let request = StopRequest { detach };
    let mut waited = Duration::ZERO;
    loop {
        let no_edge = match on.edge.post::<Stopping>("/v1/stop", &request).await {
            Err(no_edge @ ClientError::NotReachable { .. }) => no_edge,
            stopping => {
                let stopping = stopping?;
                let ended = until_gone(stopping.pid).await;
                on.show(&stopping, tell)?;
                return said_whether(ended, stopping.pid, on);
            }
        };
        // It may have crashed, and wait to be started again by one that would do so.
        match on.run.post::<RunStopping>("/v1/stop", &request).await {
            Err(ClientError::NotReachable { .. }) if detach => return Ok(Exit::NotReachable),
            Err(ClientError::NotReachable { .. }) => return Err(no_edge.into()),
            // Started again, or about to be missed: one of the two is soon there to be asked.
            Err(ClientError::Problem(problem))
                if problem.code == Code::Busy && waited < CHANGES_WITHIN =>
            {
                tokio::time::sleep(LOOK_EVERY).await;
                waited += LOOK_EVERY;
            }
            stopping => {
                let stopping = stopping?;
                let ended = until_gone(stopping.pid).await;
                on.show(&stopping, tell_of_run)?;
                return said_whether(ended, stopping.pid, on);
            }
        }
    }
}

async fn until_gone(pid: u32) -> bool {
    let gone = async {
        while !is_gone(pid) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(GONE_WITHIN, gone).await.is_ok()
}

fn said_whether(ended: bool, pid: u32, on: &mut Session<'_>) -> Result<Exit, Failure> {
    if !ended {
        writeln!(on.err, "postern: process {pid} has not ended yet")?;
    }
    Ok(Exit::Done)
}

fn tell_of_run(stopping: &RunStopping, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "no edge was running; `postern run` has ended, and starts none again")?;
    match (stopping.detached.as_slice(), stopping.stays) {
        ([], true) => writeln!(
            out,
            "the filter that the edge left stays, its entries in force; `postern edge stop \
             --detach` takes it off"
        ),
        ([], false) => writeln!(out, "no filter was attached: nothing is enforced any more"),
        (_, _) => writeln!(
            out,
            "the filter that the edge left was taken off: nothing is enforced any more"
        ),
    }
}

/// A process that nobody has waited for is a zombie, and holds nothing any more.
fn is_gone(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name before the state is in brackets, and may hold some.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn tell(stopping: &Stopping, out: &mut dyn Write) -> io::Result<()> {
    let with = if stopping.supervised { ", and `postern run` ends with it" } else { "" };
    writeln!(out, "the edge has stopped{with}")?;
    let guarded = stopping.interfaces.iter().filter(|interface| interface.is_guarded());
    let names: Vec<&str> = guarded.map(InterfaceStatus::on).collect();
    if names.is_empty() {
        return writeln!(out, "no filter was attached: nothing is enforced any more");
    }
    let names = names.join(", ");
    if stopping.detached {
        return writeln!(out, "the filter was taken off {names}: nothing is enforced any more");
    }
    let entries = stopping.entries.iter();
    let mut entries: Vec<String> = entries
        .map(|(list, count)| format!("{} of the {list} list", counted(*count, "entry", "entries")))
        .collect();
    if stopping.feed_entries > 0 {
        entries.push(format!("{} of feeds", counted(stopping.feed_entries, "entry", "entries")));
    }
    let last = entries.pop().unwrap_or_default();
    writeln!(out, "the filter stays on {names}: {} and {last} are in force", entries.join(", "))?;
    writeln!(out, "those with an end still end on time; `postern edge stop --detach` ends it all")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(detached: bool, guarded: bool) -> String {
        let interface = InterfaceStatus {
            name: "eth0".into(),
            called: Some("wan0".into()),
            mode: "native".into(),
            state: "up".into(),
            program_id: Some(7),
        };
        let missing = InterfaceStatus {
            name: "eth1".into(),
            called: None,
            mode: "detached".into(),
            state: "missing".into(),
            program_id: None,
        };
        let stopping = Stopping {
            interfaces: if guarded { vec![interface, missing] } else { Vec::new() },
            detached,
            entries: [("allow".to_owned(), 1), ("deny".to_owned(), 12)].into(),
            feed_entries: 60_000,
            pid: 1,
            supervised: detached,
        };
        let mut out = Vec::new();
        tell(&stopping, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_goes_on_is_said_and_what_ended_too() {
        assert_eq!(
            told(false, true),
            "the edge has stopped\n\
             the filter stays on wan0: 1 entry of the allow list, 12 entries of the deny list and \
             60000 entries of feeds are in force\n\
             those with an end still end on time; `postern edge stop --detach` ends it all\n"
        );
        assert_eq!(
            told(true, true),
            "the edge has stopped, and `postern run` ends with it\n\
             the filter was taken off wan0: nothing is enforced any more\n"
        );
        assert!(told(false, false).contains("no filter was attached"));
    }

    #[test]
    fn this_process_runs_and_one_with_no_number_is_gone() {
        assert!(!is_gone(std::process::id()));
        assert!(is_gone(0));
    }
}
