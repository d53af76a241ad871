//! Tier 3: the real kernel, its verifier and its maps, on made-up frames and in namespaces of the
//! tests' own. Needs root and a kernel with BPF; without them it fails and says so.

mod agreement;
mod attach;
mod drive;
mod frames;
mod lifecycle;
mod maps;
mod oracle;
mod wire;

use postern::edge::filter::MapSizes;
use postern::edge::kernel::Probe;

/// The program, verified, over maps of its own.
fn probe() -> Probe {
    Probe::load(MapSizes::default()).unwrap_or_else(|error| panic!("{error}"))
}
