//! The kernel program run on frames that somebody made up: what BPF_PROG_TEST_RUN is for. Attached
//! nowhere, pinned nowhere.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use aya::Ebpf;
use aya::programs::{TestRun, TestRunOptions};

use relay_common::event::Event;
use relay_common::layout;

use super::events::Ring;
use super::{AttachError, KernelFilter, Program, load};
use crate::edge::events::source::EventSource;
use crate::edge::filter::MapSizes;

/// The verified program and its maps, for tests and benchmarks.
#[derive(Debug)]
pub struct Probe {
    /// The maps that the program looks into.
    pub filter: KernelFilter,
    ebpf: Ebpf,
}

/// What the program answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// XDP_DROP; otherwise it was XDP_PASS, since the program knows no other answer.
    pub drops: bool,
    /// The mean of all repetitions, for one packet; the kernel gives whole nanoseconds.
    pub duration: Duration,
}

/// More than the ring buffer has room for.
const EVENTS_MAX: usize = layout::EVENT_BYTES as usize;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

impl Probe {
    /// Loads the program with maps of its own.
    pub fn load(sizes: MapSizes) -> Result<Self, AttachError> {
        Self::load_with(sizes, false)
    }

    /// Loads the program, perhaps with the lines for dropped packets in it.
    pub fn load_with(sizes: MapSizes, log_drops: bool) -> Result<Self, AttachError> {
        let loaded = load::fresh(sizes, log_drops)?;
        let (maps, program_id) = (loaded.maps, loaded.program_id);
        let filter = KernelFilter { maps, program_id, site: None, links: None };
        Ok(Self { filter, ebpf: loaded.ebpf })
    }

    /// How many instructions the verifier went through; a million is the most it bears. `None` on
    /// kernels before 5.16, which do not say.
    pub fn verified(&mut self) -> Option<u32> {
        load::program(&mut self.ebpf).info().ok()?.verified_instruction_count()
    }

    /// The program itself, for a [`Drive`](super::Drive).
    pub fn program(&mut self) -> io::Result<Program> {
        let fd = load::program(&mut self.ebpf).fd().map_err(io::Error::other)?;
        Program::of(fd.as_fd())
    }

    /// Takes what the program has told since the last time.
    ///
    /// # Errors
    /// The buffer cannot be read.
    pub fn events(&mut self) -> io::Result<Vec<Event>> {
        let ring = self.filter.maps.events.take().expect("only this reads a probe's events");
        let (mut ring, mut events) = (Ring(ring), Vec::new());
        let read = ring.read(EVENTS_MAX, Duration::ZERO, &mut events);
        self.filter.maps.events = Some(ring.0);
        read.map(|()| events)
    }

    /// Runs the program on a frame, so many times. The kernel wants at least the 14 bytes of an
    /// Ethernet header.
    ///
    /// # Errors
    /// The kernel refuses the frame, or the program answers what it should not know.
    pub fn run(&mut self, frame: &[u8], repeat: u32) -> io::Result<Outcome> {
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = load::program(&mut self.ebpf).test_run(options).map_err(io::Error::other)?;
        let drops = match result.return_value {
            XDP_DROP => true,
            XDP_PASS => false,
            other => return Err(io::Error::other(format!("the program answered {other}"))),
        };
        Ok(Outcome { drops, duration: result.duration })
    }
}
