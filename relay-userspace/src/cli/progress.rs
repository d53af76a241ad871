//! How far something is that takes its time: a line at the terminal, which goes when it is over.
//! Where nobody sits, in a log or a pipe, nothing is said.

use std::future::Future;
use std::io;
use std::time::Duration;

use super::session::Session;
use crate::control::api::{WorkReport, WorkStage};
use crate::control::client::Client;

/// How often it is asked for.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The line, as it was written last.
#[derive(Debug, Default)]
pub(super) struct Progress {
    said: String,
}

impl Progress {
    /// Writes it anew where it has changed.
    pub(super) fn say(&mut self, text: String, on: &mut Session<'_>) -> io::Result<()> {
        if !on.shows_progress || text == self.said {
            return Ok(());
        }
        // Blanks over the rest of a longer one.
        let width = self.said.chars().count();
        write!(on.err, "\r{text:<width$}")?;
        self.said = text;
        on.err.flush()
    }

    /// Takes it away.
    pub(super) fn end(self, on: &mut Session<'_>) -> io::Result<()> {
        if self.said.is_empty() {
            return Ok(());
        }
        write!(on.err, "\r{:width$}\r", "", width = self.said.chars().count())?;
        on.err.flush()
    }
}

/// Waits for a request that the owner of the lists carries out, and says meanwhile how far it is.
/// `what` it is about stands in front.
pub(super) async fn of_the_edge<T>(
    what: &str,
    request: impl Future<Output = T>,
    edge: &Client,
    on: &mut Session<'_>,
) -> io::Result<T> {
    let mut progress = Progress::default();
    tokio::pin!(request);
    let done = loop {
        let report = async {
            tokio::time::sleep(ASK_EVERY).await;
            // An edge that is of another version, or has gone: the request itself will tell.
            edge.get::<WorkReport>("/v1/work").await.ok()
        };
        tokio::select! {
            done = &mut request => break done,
            Some(report) = report, if on.shows_progress => {
                progress.say(format!("{what}: {}", words(report)), on)?;
            }
        }
    };
    progress.end(on)?;
    Ok(done)
}

fn words(WorkReport { stage, done, of }: WorkReport) -> String {
    match stage {
        WorkStage::Idle => "reading".to_owned(),
        WorkStage::Checking => format!("checking {done} of {of}"),
        WorkStage::Writing => format!("writing {done} of {of}"),
        WorkStage::Saving => "saving".to_owned(),
        WorkStage::Enforcing => format!("enforcing {done} of {of}"),
    }
}
