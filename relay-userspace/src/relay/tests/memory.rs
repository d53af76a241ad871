//! What an idle session holds: its task above all, which is as large as the deepest of all that it may
//! come to wait for.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::super::{
    accepting::Arrival,
    connection,
    state::{Listener, Shared},
};

/// Octets of a session's task; its buffers and what the client said come on top.
const TASK_MAX: usize = 6 * 1024;

type Serve<F> = fn(Arc<Shared>, Arc<Listener>, Arrival, CancellationToken) -> F;

fn size_of_future<F>(_: Serve<F>) -> usize {
    size_of::<F>()
}

#[test]
fn ten_thousand_tasks_are_small() {
    let size = size_of_future(connection::serve);
    assert!(size <= TASK_MAX, "{size} octets; box what is seldom waited for");
}
