//! Who carries refreshes out: a thread beside the owner of the lists, or the owner itself.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::accept::{Done, Job, run};
use super::generation::Record;
use super::store::FeedStore;

/// Under this name it is kept what is in force; no feed has it, since names hold no underscore.
pub(super) const RECORD: &str = "in_force";

#[derive(Debug)]
pub(super) enum Order {
    Refresh(Box<Job>),
    /// Write down what is in force.
    Record(Record),
}

/// Takes orders. There is at most one refresh of each feed at a time, which bounds the queue.
#[derive(Debug)]
pub(super) struct Work {
    store: FeedStore,
    /// `None`: each order is carried out when it is given.
    beside: Option<(Sender<Order>, Receiver<Done>)>,
    done: VecDeque<Done>,
}

impl Work {
    pub(super) fn new(store: FeedStore) -> Self {
        Self { store, beside: None, done: VecDeque::new() }
    }

    pub(super) fn store(&self) -> &FeedStore {
        &self.store
    }

    /// From now on a thread carries the orders out; it ends with this.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn beside(&mut self) -> io::Result<()> {
        let (give, orders) = channel();
        let (done, ended) = channel();
        let store = self.store.clone();
        std::thread::Builder::new().name("edge-feeds".into()).spawn(move || {
            for order in orders {
                if let Some(how) = carry_out(order, &store)
                    && done.send(how).is_err()
                {
                    return;
                }
            }
        })?;
        self.beside = Some((give, ended));
        Ok(())
    }

    pub(super) fn give(&mut self, order: Order) {
        let order = match &self.beside {
            None => order,
            Some((give, _)) => match give.send(order) {
                Ok(()) => return,
                // The thread has panicked; slower, but it goes on.
                Err(returned) => returned.0,
            },
        };
        self.done.extend(carry_out(order, &self.store));
    }

    /// A refresh that has ended.
    pub(super) fn ended(&mut self) -> Option<Done> {
        let beside = self.beside.as_ref().and_then(|(_, ended)| ended.try_recv().ok());
        beside.or_else(|| self.done.pop_front())
    }
}

fn carry_out(order: Order, store: &FeedStore) -> Option<Done> {
    match order {
        Order::Refresh(job) => Some(run(*job, store)),
        Order::Record(record) => {
            if let Err(error) = store.keep_words(RECORD, &record) {
                // The next start writes all feeds anew, and that is all.
                tracing::warn!(%error, "what is in force of the feeds could not be written down");
            }
            None
        }
    }
}
