//! Attaching, adopting and detaching, on veth pairs in namespaces of the tests' own.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use postern::edge::filter::{Filter, MapSizes, Mode};
use postern::edge::kernel::{AttachError, KernelFilter, KernelSettings, detach_left_behind};
use postern_tests::netns::{Netns, veth};
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::parse::Family;

const SIZES: MapSizes = MapSizes { allow: 100, deny: 100, feeds_allow: 1, feeds_deny: 1 };

/// A gateway and a stranger on a wire of their own, and a pin directory of their own.
struct Wire {
    gateway: Netns,
    stranger: Netns,
    pins: tempfile::TempDir,
}

impl Wire {
    fn new() -> Self {
        let wire = Self {
            gateway: Netns::new("gw").unwrap_or_else(|error| panic!("{error}")),
            stranger: Netns::new("stranger").unwrap(),
            pins: tempfile::tempdir().unwrap(),
        };
        wire.plug();
        wire
    }

    fn plug(&self) {
        veth(&self.gateway, "eth0", &self.stranger, "eth0").unwrap();
        for (ns, host) in [(&self.gateway, 1), (&self.stranger, 2)] {
            ns.addr("eth0", &format!("10.7.0.{host}/24")).unwrap();
            ns.addr("eth0", &format!("2001:db8:7::{host}/64")).unwrap();
        }
    }

    fn settings(&self) -> KernelSettings {
        let pin_dir = self.pin_dir();
        KernelSettings { pin_dir, sizes: SIZES, ..KernelSettings::on("eth0") }
    }

    fn pin_dir(&self) -> PathBuf {
        self.pins.path().join("bpf")
    }

    fn try_open(&self, settings: &KernelSettings) -> Result<KernelFilter, AttachError> {
        self.gateway.enter(|| KernelFilter::open(settings)).unwrap()
    }

    fn open(&self) -> KernelFilter {
        self.try_open(&self.settings()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Whether the stranger's SYN is answered, or the second one that TCP sends after a second: a
    /// program that comes or goes makes some drivers, veth among them, lose what is under way.
    fn connects(&self, address: &str) -> bool {
        let address: SocketAddr = address.parse().unwrap();
        let listener = self.gateway.enter(|| TcpListener::bind(address)).unwrap().unwrap();
        let client = self
            .stranger
            .enter(|| TcpStream::connect_timeout(&address, Duration::from_millis(1500)));
        drop(listener);
        match client.unwrap() {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => false,
            Err(error) => panic!("neither answered nor dropped: {error}"),
        }
    }

    fn mode(&self, filter: &KernelFilter) -> Mode {
        self.gateway.enter(|| filter.attachment().mode).unwrap()
    }

    fn link(&self) -> String {
        self.gateway.run("ip", &["-d", "link", "show", "eth0"]).unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The file system goes with its last mount, and with it every pin.
        let _ = nix::mount::umount2(&self.pin_dir(), nix::mount::MntFlags::MNT_DETACH);
    }
}

fn deny(scope: Scope) -> Entry {
    Entry::new(scope, Reason::Manual, 3)
}

#[test]
fn packets_are_dropped_and_pass_again() {
    let wire = Wire::new();
    let mut filter = wire.open();
    assert_eq!(wire.mode(&filter), Mode::Native);
    assert!(wire.connects("10.7.0.1:25"));
    for prefix in ["10.7.0.2/32", "2001:db8:7::/64"] {
        filter.put(List::Deny, prefix.parse().unwrap(), deny(Scope::MX)).unwrap();
    }
    filter.set_guarded(Scope::MX).unwrap();
    for (closed, open) in
        [("10.7.0.1:25", "10.7.0.1:22"), ("[2001:db8:7::1]:25", "[2001:db8:7::1]:587")]
    {
        assert!(!wire.connects(closed));
        assert!(wire.connects(open));
    }
    let totals = filter.totals().unwrap();
    assert!(totals.dropped(Family::V4) > 0 && totals.dropped(Family::V6) > 0);
    assert!(filter.remove(List::Deny, "10.7.0.2/32".parse().unwrap()).unwrap());
    assert!(wire.connects("10.7.0.1:25"));
    filter.detach().unwrap();
    assert!(wire.connects("[2001:db8:7::1]:25"));
    assert!(!wire.link().contains("xdp"));
}

#[test]
fn a_dropped_filter_works_on_and_the_next_one_adopts_it() {
    let wire = Wire::new();
    let mut filter = wire.open();
    filter.put(List::Deny, "10.7.0.2/32".parse().unwrap(), deny(Scope::MX)).unwrap();
    filter.set_guarded(Scope::MX).unwrap();
    assert!(!wire.connects("10.7.0.1:25"));
    let hits = filter.rule_hits(3).unwrap().hits;
    let first = filter.attachment().program_id;
    drop(filter);
    assert!(!wire.connects("10.7.0.1:25"), "the pins hold the filter without a process");

    let filter = wire.open();
    assert_ne!(filter.attachment().program_id, first, "the program is replaced");
    assert_eq!(wire.mode(&filter), Mode::Native);
    assert!(!wire.connects("10.7.0.1:25"));
    assert!(filter.get(List::Deny, "10.7.0.2/32".parse().unwrap()).unwrap().is_some());
    assert!(filter.rule_hits(3).unwrap().hits > hits, "counters survive");
    let in_use = wire.try_open(&wire.settings());
    assert!(matches!(in_use, Err(AttachError::InUse { .. })), "{in_use:?}");

    drop(filter);
    assert!(wire.gateway.enter(|| detach_left_behind("eth0", &wire.pin_dir())).unwrap().unwrap());
    assert!(wire.connects("10.7.0.1:25"));
    assert!(!wire.gateway.enter(|| detach_left_behind("eth0", &wire.pin_dir())).unwrap().unwrap());
}

#[test]
fn lists_of_another_size_are_taken_along() {
    let wire = Wire::new();
    let mut filter = wire.open();
    let prefixes = ["10.7.0.2/32", "2001:db8:7::/64", "10.8.0.0/16", "10.9.0.0/16"];
    for prefix in prefixes {
        filter.put(List::Deny, prefix.parse().unwrap(), deny(Scope::MX)).unwrap();
    }
    filter.set_guarded(Scope::MX).unwrap();
    drop(filter);
    let larger = KernelSettings { sizes: MapSizes { deny: 200, ..SIZES }, ..wire.settings() };
    let filter = wire.try_open(&larger).unwrap();
    assert_eq!(filter.capacity(), larger.sizes);
    assert_eq!(filter.entries(List::Deny).unwrap().len(), prefixes.len());
    assert!(!wire.connects("10.7.0.1:25"));
    drop(filter);

    let smaller = KernelSettings { sizes: MapSizes { deny: 1, ..SIZES }, ..wire.settings() };
    let refused = wire.try_open(&smaller);
    assert!(matches!(refused, Err(AttachError::Shrunk { room: 1, .. })), "{refused:?}");
    assert!(!wire.connects("10.7.0.1:25"), "what was attached before still is");
    let filter = wire.try_open(&larger).unwrap();
    assert_eq!(filter.entries(List::Deny).unwrap().len(), prefixes.len());
}

#[test]
fn an_interface_that_was_made_anew_gets_the_lists_of_the_old_one() {
    let wire = Wire::new();
    let mut filter = wire.open();
    filter.put(List::Deny, "10.7.0.2/32".parse().unwrap(), deny(Scope::MX)).unwrap();
    filter.set_guarded(Scope::MX).unwrap();
    wire.gateway.run("ip", &["link", "del", "eth0"]).unwrap();
    assert_eq!(wire.mode(&filter), Mode::Detached);
    drop(filter);
    wire.plug();
    let filter = wire.open();
    assert_eq!(wire.mode(&filter), Mode::Native);
    assert!(!wire.connects("10.7.0.1:25"));
}

#[test]
fn another_program_is_named_and_left_alone() {
    let wire = Wire::new();
    let elsewhere = KernelSettings { pin_dir: wire.pins.path().join("bpf2"), ..wire.settings() };
    let first = wire.try_open(&elsewhere).unwrap();
    let id = first.attachment().program_id.unwrap();
    let error = wire.try_open(&wire.settings()).unwrap_err();
    let sentence = error.to_string();
    assert!(sentence.contains("postern") && sentence.contains(&id.to_string()), "{sentence}");
    assert_eq!(wire.mode(&first), Mode::Native);
    first.detach().unwrap();
    nix::mount::umount2(&elsewhere.pin_dir, nix::mount::MntFlags::MNT_DETACH).unwrap();
    wire.open().detach().unwrap();
}

#[test]
fn generic_mode_only_where_permitted() {
    let wire = Wire::new();
    // No driver code at all stands behind the loopback of a namespace.
    let native = KernelSettings { interface: "lo".into(), ..wire.settings() };
    let refused = wire.try_open(&native);
    assert!(matches!(refused, Err(AttachError::NoNative { .. })), "{refused:?}");
    let generic = KernelSettings { generic_permitted: true, ..native.clone() };
    let filter = wire.try_open(&generic).unwrap();
    assert_eq!(wire.mode(&filter), Mode::Generic);
    drop(filter);
    let filter = wire.try_open(&generic).unwrap();
    assert_eq!(wire.mode(&filter), Mode::Generic, "adopted as it was");
    drop(filter);
    let refused = wire.try_open(&native);
    assert!(matches!(refused, Err(AttachError::NoNative { .. })), "{refused:?}");
}

#[test]
fn a_name_in_another_namespace_is_not_adopted() {
    let wire = Wire::new();
    let first = wire.open();
    drop(first);
    let refused = wire.stranger.enter(|| KernelFilter::open(&wire.settings()).map(drop)).unwrap();
    assert!(matches!(refused, Err(AttachError::PinnedElsewhere { .. })), "{refused:?}");
    assert!(wire.link().contains("xdp"));
}

#[test]
fn what_is_missing_is_said() {
    let wire = Wire::new();
    let settings = KernelSettings { interface: "eth9".into(), ..wire.settings() };
    let error = wire.try_open(&settings).unwrap_err();
    assert_eq!(error.to_string(), "there is no network interface named eth9");
    assert!(!wire.pin_dir().join("v2").exists(), "an attempt that failed leaves no folders");
    let full = wire.pins.path().join("full");
    std::fs::create_dir_all(full.join("of things")).unwrap();
    let settings = KernelSettings { pin_dir: full, ..wire.settings() };
    let error = wire.try_open(&settings).unwrap_err();
    assert!(matches!(error, AttachError::NotEmpty { .. }), "{error:?}");
    let settings = KernelSettings { pin_dir: "/proc/nowhere".into(), ..wire.settings() };
    let error = wire.try_open(&settings).unwrap_err();
    assert!(matches!(error, AttachError::Bpffs { .. }), "{error:?}");
}

#[test]
fn without_capabilities_the_error_names_them() {
    let wire = Wire::new();
    let refused = wire
        .gateway
        .enter(|| {
            // Capabilities belong to the thread, and this one ends with the closure.
            caps::clear(None, caps::CapSet::Effective).unwrap();
            KernelFilter::open(&wire.settings()).map(drop)
        })
        .unwrap();
    let sentence = refused.unwrap_err().to_string();
    assert!(sentence.contains("CAP_BPF"), "{sentence}");
}

#[test]
fn three_capabilities_are_enough_once_the_file_system_is_mounted() {
    use caps::{CapSet, Capability};
    let wire = Wire::new();
    wire.open().detach().unwrap();
    let opened = wire
        .gateway
        .enter(|| {
            let enough =
                [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON].into();
            caps::set(None, CapSet::Effective, &enough).unwrap();
            let filter = KernelFilter::open(&wire.settings())?;
            Ok::<_, AttachError>(filter.attachment().mode)
        })
        .unwrap();
    assert_eq!(opened.unwrap_or_else(|error| panic!("{error}")), Mode::Native);
}
