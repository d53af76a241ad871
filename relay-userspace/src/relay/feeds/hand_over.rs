//! From the relay to the edge: content, word that nothing has changed, or why there is neither.

use std::time::Duration;

use tokio::time::sleep;

use super::{Content, FetchError, Fetched};
use crate::control::api::{FeedAnswer, FeedFailed, FeedUnchanged};
use crate::control::client::{Client, ClientError};
use crate::control::file_body::FileBody;
use crate::edge::lines::fit_text;
use crate::relay::bans::may_come_back;

/// How often something is offered to an edge that answers, but with no decision.
const ATTEMPTS: u32 = 5;
/// An edge that is being started again is back within a few of these.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(2);

/// Brings what came of a fetch to the edge; while the edge is away, waits for it.
///
/// # Errors
/// The edge does not want it, or could not take it several times.
pub async fn hand_over(
    edge: &Client,
    name: &str,
    fetched: &mut Result<Fetched, FetchError>,
) -> Result<FeedAnswer, ClientError> {
    let mut attempts = 0;
    loop {
        let error = match offer(edge, name, fetched).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if !matches!(error, ClientError::NotReachable { .. }) {
            attempts += 1;
        }
        if !may_come_back(&error) || attempts == ATTEMPTS {
            return Err(error);
        }
        sleep(BETWEEN_ATTEMPTS).await;
    }
}

async fn offer(
    edge: &Client,
    name: &str,
    fetched: &mut Result<Fetched, FetchError>,
) -> Result<FeedAnswer, ClientError> {
    let path = |what| format!("/v1/feeds/{name}/{what}");
    match fetched {
        Ok(Fetched::Content(content)) => match content.again().await {
            Ok(file) => edge.post_file(&path("content"), &content.validators, file).await,
            Err(error) => {
                let failed = FeedFailed { reason: FetchError::Disk(error).to_string() };
                edge.post(&path("failed"), &failed).await
            }
        },
        Ok(Fetched::Unchanged) => edge.post(&path("unchanged"), &FeedUnchanged::default()).await,
        Err(error) => {
            // What a stranger's server said is part of it, and must not be what gets it refused.
            let failed = FeedFailed { reason: fit_text(&error.to_string()) };
            edge.post(&path("failed"), &failed).await
        }
    }
}

impl Content {
    /// The whole content, as often as it has to be sent.
    async fn again(&mut self) -> std::io::Result<FileBody> {
        use tokio::io::AsyncSeekExt;
        self.file.rewind().await?;
        Ok(FileBody::new(self.file.try_clone().await?, self.bytes))
    }
}
