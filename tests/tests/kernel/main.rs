//! Tier 3: the real kernel, its verifier and its maps, on made-up frames and in namespaces of the
//! tests' own. Needs root and a kernel with BPF; without them it fails and says so.

mod agreement;
mod attach;
mod drive;
mod frames;
mod limits;
mod lists;
mod maps;
mod oracle;

use postern::edge::filter::MapSizes;
use postern::edge::kernel::Probe;

/// The program, verified, over maps of its own: small ones, which are made and freed at once.
fn probe() -> Probe {
    let sizes = MapSizes { allow: 1_024, deny: 1_024, feeds_allow: 1_024, feeds_deny: 1_024 };
    Probe::load(sizes).unwrap_or_else(|error| panic!("{error}"))
}
