//! Tier 3: the real kernel, its verifier and its maps, on made-up frames and in namespaces of the
//! tests' own. Needs root and a kernel with BPF; without them it fails and says so.

mod agreement;
mod attach;
mod drive;
mod frames;
mod hosts;
mod lifecycle;
mod limits;
mod links;
mod lists;
mod maps;
mod oracle;
mod pins;
mod wire;

use postern::edge::filter::MapSizes;
use postern::edge::kernel::Probe;

/// The program, verified, over maps of its own: small ones, which are made and freed at once.
fn probe() -> Probe {
    let sizes = MapSizes { allow: 1_024, deny: 1_024, feeds_allow: 1_024, feeds_deny: 1_024 };
    Probe::load(sizes).unwrap_or_else(|error| panic!("{error}"))
}

/// The verifier bears a million instructions (BPF_COMPLEXITY_LIMIT_INSNS), counted along every path
/// that it follows. Well below, so that another kernel's verifier bears the program, too.
#[test]
fn the_verifier_has_room_left() {
    for log_drops in [false, true] {
        let sizes = MapSizes { allow: 1, deny: 1, ..MapSizes::default() };
        let mut probe =
            Probe::load_with(sizes, log_drops).unwrap_or_else(|error| panic!("{error}"));
        let verified = probe.verified().unwrap_or(0);
        eprintln!("lines for drops {log_drops}: {verified} instructions verified");
        assert!(verified < 600_000, "{verified} with lines for drops {log_drops}");
    }
}
