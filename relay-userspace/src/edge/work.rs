//! What the owner of the lists is at, for whoever waits for it: of a million lines it is at for
//! seconds, in which it answers nobody.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::control::api::{WorkReport, WorkStage};

/// Set by the owner, read by others. The three numbers are read one by one: a report may be of two
/// moments, which nobody sees.
#[derive(Debug, Default)]
pub(super) struct Work {
    stage: AtomicU8,
    done: AtomicU64,
    of: AtomicU64,
}

const STAGES: [WorkStage; 5] = [
    WorkStage::Idle,
    WorkStage::Checking,
    WorkStage::Writing,
    WorkStage::Saving,
    WorkStage::Enforcing,
];

impl Work {
    /// Goes on to a stage with so many entries.
    pub(super) fn begin(&self, stage: WorkStage, of: usize) {
        let number = STAGES.iter().position(|&known| known == stage).unwrap_or(0);
        self.done.store(0, Ordering::Relaxed);
        self.of.store(of as u64, Ordering::Relaxed);
        self.stage.store(number as u8, Ordering::Relaxed);
    }

    /// So many more are done.
    pub(super) fn advance(&self, by: usize) {
        self.done.fetch_add(by as u64, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.begin(WorkStage::Idle, 0);
    }

    pub(super) fn report(&self) -> WorkReport {
        let number = usize::from(self.stage.load(Ordering::Relaxed));
        WorkReport {
            stage: STAGES.get(number).copied().unwrap_or_default(),
            done: self.done.load(Ordering::Relaxed),
            of: self.of.load(Ordering::Relaxed),
        }
    }
}
