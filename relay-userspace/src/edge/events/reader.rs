//! The thread that takes events out of their source. The owner of the lists is asked only what a
//! rule is called, and not waited for long.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use relay_common::event::Event;

use super::hub::Hub;
use super::source::EventSource;
use crate::edge::clock::Now;
use crate::edge::store::RULE_SLOT_OTHER;

/// Events that are taken out at once: a flood must not keep the thread from its other duties.
const AT_ONCE_MAX: usize = 512;
/// How soon the thread sees that it is to end.
const LOOK_UP_EVERY: Duration = Duration::from_millis(200);
/// A counter slot may be given to another rule, so its name is asked for again after this.
const NAMES_KEPT_MS: u64 = 60_000;
/// An owner that had no time is not asked again before this.
const ASK_AGAIN_MS: u64 = 2_000;

/// Asks what the rules of these counter slots are called; `None` if there was no answer in time.
pub type AskNames = Box<dyn Fn(Vec<u32>) -> Option<Vec<(u32, String)>> + Send>;

/// The thread; dropping this ends it.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Begins to read.
///
/// # Errors
/// The system gives no thread.
pub fn start(
    mut source: Box<dyn EventSource>,
    hub: Arc<Hub>,
    ask: AskNames,
    clock: fn() -> Now,
) -> io::Result<Reader> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let read = move || {
        let mut names = Names::new(ask);
        let mut events = Vec::with_capacity(AT_ONCE_MAX);
        while !stopped.load(Ordering::Relaxed) {
            events.clear();
            if let Err(error) = source.read(AT_ONCE_MAX, LOOK_UP_EVERY, &mut events) {
                tracing::error!(%error, "packets are not told about any more");
                return;
            }
            // Without events too: followers may have lost some, and room by now to be told so.
            let now = clock();
            names.learn(&events, now);
            hub.publish(&events, now, |rule| names.of(rule));
        }
    };
    let thread = std::thread::Builder::new().name("edge-events".into()).spawn(read)?;
    Ok(Reader { stop, thread: Some(thread) })
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the reader of events has panicked");
        }
    }
}

/// What rules are called, as far as it was asked. Bounded by the number of counter slots.
struct Names {
    ask: AskNames,
    known: HashMap<u32, String>,
    since_ms: u64,
    not_before_ms: u64,
}

impl Names {
    fn new(ask: AskNames) -> Self {
        Self { ask, known: HashMap::new(), since_ms: 0, not_before_ms: 0 }
    }

    fn learn(&mut self, events: &[Event], now: Now) {
        if now.boot_ms.saturating_sub(self.since_ms) >= NAMES_KEPT_MS {
            self.known.clear();
            self.since_ms = now.boot_ms;
        }
        let decided = events.iter().filter(|event| !event.fate.is_of_the_limit());
        let unknown: BTreeSet<u32> = decided
            .map(|event| event.rule)
            .filter(|rule| *rule != RULE_SLOT_OTHER && !self.known.contains_key(rule))
            .collect();
        if unknown.is_empty() || now.boot_ms < self.not_before_ms {
            return;
        }
        match (self.ask)(unknown.iter().copied().collect()) {
            Some(names) => {
                // A slot without a rule is not asked about again and again.
                self.known.extend(unknown.into_iter().map(|rule| (rule, numbered(rule))));
                self.known.extend(names);
            }
            None => self.not_before_ms = now.boot_ms + ASK_AGAIN_MS,
        }
    }

    fn of(&self, rule: u32) -> String {
        match self.known.get(&rule) {
            Some(name) => name.clone(),
            None if rule == RULE_SLOT_OTHER => "one of those that share a counter".to_owned(),
            None => numbered(rule),
        }
    }
}

fn numbered(rule: u32) -> String {
    format!("rule {rule}")
}
