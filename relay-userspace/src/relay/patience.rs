//! How long a client is kept waiting for an edge that does not answer: once, and not for long.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// Lists of half a million lines are written in less.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// An edge that has let somebody wait in vain is not asked again for so long.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// What all clients at connect have with the edge.
#[derive(Debug, Default)]
pub struct EdgePatience(Mutex<Option<Instant>>);

impl EdgePatience {
    /// The answer, if it comes in time.
    pub async fn wait_for<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        if self.left_alone().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let answer = timeout(ANSWER_WITHIN, answer).await.ok();
        *self.left_alone() = answer.is_none().then(|| Instant::now() + LEFT_ALONE);
        answer
    }

    fn left_alone(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().expect("no panic while it is held")
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_edge_that_keeps_clients_waiting_is_left_alone_for_a_while() {
        let patience = EdgePatience::default();
        assert_eq!(patience.wait_for(ready(1)).await, Some(1));
        let started = Instant::now();
        assert_eq!(patience.wait_for(pending::<u8>()).await, None);
        assert_eq!(started.elapsed(), ANSWER_WITHIN);
        // Nobody else waits, whatever it would say.
        assert_eq!(patience.wait_for(ready(2)).await, None);
        assert_eq!(patience.wait_for(pending::<u8>()).await, None);
        assert_eq!(started.elapsed(), ANSWER_WITHIN);
        tokio::time::advance(LEFT_ALONE).await;
        assert_eq!(patience.wait_for(ready(3)).await, Some(3));
    }
}
