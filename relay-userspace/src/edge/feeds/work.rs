//! Who carries refreshes out: a thread beside the owner of the lists, or the owner itself.
//!
//! What is read comes from others, and a mistake in reading it must neither end the thread nor leave
//! its feed busy for ever: a panic is a refresh that failed.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::accept::{Done, How, Job, run};
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

/// Carries one refresh out.
type Run = fn(Job, &FeedStore) -> Done;

/// Takes orders. There is at most one refresh of each feed at a time, which bounds the queue.
#[derive(Debug)]
pub(super) struct Work {
    store: FeedStore,
    /// `None`: each order is carried out when it is given.
    beside: Option<(Sender<Order>, Receiver<Done>)>,
    done: VecDeque<Done>,
    /// For a test, another one.
    pub(super) run: Run,
}

impl Work {
    pub(super) fn new(store: FeedStore) -> Self {
        Self { store, beside: None, done: VecDeque::new(), run }
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
        let (store, run) = (self.store.clone(), self.run);
        std::thread::Builder::new().name("edge-feeds".into()).spawn(move || {
            for order in orders {
                if let Some(how) = carry_out(order, &store, run)
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
                // The thread is gone; slower, but it goes on.
                Err(returned) => returned.0,
            },
        };
        self.done.extend(carry_out(order, &self.store, self.run));
    }

    /// A refresh that has ended.
    pub(super) fn ended(&mut self) -> Option<Done> {
        let beside = self.beside.as_ref().and_then(|(_, ended)| ended.try_recv().ok());
        beside.or_else(|| self.done.pop_front())
    }
}

fn carry_out(order: Order, store: &FeedStore, run: Run) -> Option<Done> {
    match order {
        Order::Refresh(job) => {
            let (name, mut meta, now_s) = (job.feed.name.clone(), job.meta.clone(), job.now_s);
            // Nothing is shared but the files, and these change in one step.
            let done = catch_unwind(AssertUnwindSafe(|| run(*job, store)));
            Some(done.unwrap_or_else(|panic| {
                let why = format!("Postern itself failed in reading it: {}", text_of(&*panic));
                tracing::error!(feed = name, why, "a refresh panicked; please report it");
                meta.refuse(&why, now_s);
                let unkept = store.keep_words(&name, &meta).err();
                Done { name, meta, how: How::Refused, unkept }
            }))
        }
        Order::Record(record) => {
            if let Err(error) = store.keep_words(RECORD, &record) {
                // The next start writes all feeds anew, and that is all.
                tracing::warn!(%error, "what is in force of the feeds could not be written down");
            }
            None
        }
    }
}

/// What a panic says, which is nearly always a text.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given")
}
