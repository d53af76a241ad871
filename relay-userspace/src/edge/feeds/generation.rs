//! What all feeds say together: which go into a generation, and how one is told from another.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use ipnet::IpNet;
use relay_common::entry::{Entry, List, Scope};
use relay_core::feed::{self, FeedClaim, Prefixes, resolve};
use serde::{Deserialize, Serialize};

/// Entries that are written at once; well below what would keep a request waiting.
const BATCH: usize = 4096;
/// Batches that are made ahead.
const BATCHES_AHEAD: usize = 2;

/// What one feed brings into a generation.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub name: String,
    pub digest: String,
    /// Of what its content was made of, not enforced.
    pub left_out: Vec<IpNet>,
    /// Its content without those.
    pub prefixes: Arc<Prefixes>,
    pub list: List,
    pub claim: FeedClaim,
}

impl Part {
    /// Whether both say the same, but for when they end.
    pub(super) fn says_what(&self, other: &Self) -> bool {
        let timeless = |claim: FeedClaim| FeedClaim { expires_s: 0, ..claim };
        self.name == other.name
            && self.digest == other.digest
            && self.left_out == other.left_out
            && self.list == other.list
            && timeless(self.claim) == timeless(other.claim)
    }

    /// The traffic it speaks about, as far as that has to be looked up.
    fn guarded(&self) -> Scope {
        match self.list {
            List::Deny => self.claim.scope.union(self.claim.observed),
            List::Allow => Scope::NONE,
        }
    }
}

/// The feeds in force at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Generation {
    pub parts: Vec<Part>,
    /// The second on CLOCK_BOOTTIME as of which its entries were made.
    pub made_s: u32,
    pub print: Print,
}

impl Generation {
    /// Every prefix of every feed in it.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (List, IpNet)> {
        self.parts.iter().flat_map(|part| part.prefixes.iter().map(|net| (part.list, net)))
    }

    pub(super) fn guarded(&self) -> Scope {
        self.parts.iter().fold(Scope::NONE, |all, part| all.union(part.guarded()))
    }

    pub(super) fn record(&self) -> Record {
        let parts = self
            .parts
            .iter()
            .map(|part| PartRecord { name: part.name.clone(), expires_s: part.claim.expires_s });
        Record { made_s: self.made_s, parts: parts.collect() }
    }
}

/// What is written down of the generation in force, so that the next process can make its entries
/// again to the second, and see whether they are those in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    made_s: u32,
    parts: Vec<PartRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PartRecord {
    name: String,
    expires_s: u32,
}

impl Record {
    /// The parts as they were when this was written, if they are the same feeds.
    pub(super) fn dated(&self, mut parts: Vec<Part>) -> Option<(Vec<Part>, u32)> {
        if parts.len() != self.parts.len() {
            return None;
        }
        for (part, was) in parts.iter_mut().zip(&self.parts) {
            if part.name != was.name {
                return None;
            }
            part.claim.expires_s = was.expires_s;
        }
        Some((parts, self.made_s))
    }
}

/// What a set of entries is told from another by, whatever their order: how many, and the sum of
/// their hashes. Made to find accidents, not forgeries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Print {
    pub entries: u64,
    sum: u64,
}

impl Print {
    pub(super) fn add(&mut self, list: List, net: IpNet, entry: Entry) {
        let mut hasher = DefaultHasher::new();
        (list, net, entry.to_bytes()).hash(&mut hasher);
        self.entries += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }

    /// Of the entries that these parts call for.
    pub(super) fn of(parts: &[Part], made_s: u32) -> Self {
        let mut print = Self::default();
        let feeds = feeds_of(parts);
        resolve(&feeds, made_s).for_each(|(list, net, entry)| print.add(list, net, entry));
        print
    }
}

fn feeds_of(parts: &[Part]) -> Vec<feed::Feed<'_>> {
    parts
        .iter()
        .map(|part| feed::Feed { prefixes: &part.prefixes, list: part.list, claim: part.claim })
        .collect()
}

/// Entries of one list.
pub(super) type Batch = (List, Vec<(IpNet, Entry)>);

/// The entries of a generation, made beside the owner while it writes them. A few batches at a
/// time: a list of them all would be larger than the feeds themselves.
#[derive(Debug)]
pub(super) struct Batches {
    pub ready: Receiver<Batch>,
    /// Ends when all are made, with what they must come to.
    pub maker: JoinHandle<Print>,
}

impl Batches {
    /// # Errors
    /// The system gives no thread.
    pub(super) fn make(parts: Vec<Part>, made_s: u32) -> std::io::Result<Self> {
        let (give, ready) = sync_channel::<Batch>(BATCHES_AHEAD);
        let maker = std::thread::Builder::new().name("edge-feeds-entries".into());
        let maker = maker.spawn(move || {
            let feeds = feeds_of(&parts);
            let mut print = Print::default();
            let mut batch: Batch = (List::Allow, Vec::with_capacity(BATCH));
            for (list, net, entry) in resolve(&feeds, made_s) {
                print.add(list, net, entry);
                if batch.0 != list || batch.1.len() == BATCH {
                    let full = std::mem::replace(&mut batch, (list, Vec::with_capacity(BATCH)));
                    // Nobody listens once the owner has given up.
                    if !full.1.is_empty() && give.send(full).is_err() {
                        return print;
                    }
                }
                batch.1.push((net, entry));
            }
            if !batch.1.is_empty() {
                let _ = give.send(batch);
            }
            print
        })?;
        Ok(Self { ready, maker })
    }
}
