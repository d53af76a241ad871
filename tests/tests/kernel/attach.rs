//! Attaching, adopting and detaching, on veth pairs in namespaces of the tests' own.

use aya::maps::{Array, HashMap, Map, MapData};
use ipnet::IpNet;
use postern::edge::filter::{Filter, MapSizes, Mode};
use postern::edge::kernel::{AttachError, KernelFilter, KernelSettings, detach_left_behind};
use relay_common::entry::{Entry, List, Scope};
use relay_common::layout::{self, LAYOUT_VERSION};
use relay_common::packed::{Lines, Place};
use relay_common::parse::Family;

use crate::wire::{self, SIZES, Wire, deny, shut_out};

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
    shut_out(&mut filter);
    assert!(!wire.connects("10.7.0.1:25"));
    let hits = filter.rule_hits(3).unwrap().hits;
    let first = filter.program_id();
    drop(filter);
    assert!(!wire.connects("10.7.0.1:25"), "the pins hold the filter without a process");

    let filter = wire.open();
    assert_ne!(filter.program_id(), first, "the program is replaced");
    assert_eq!(wire.mode(&filter), Mode::Native);
    assert!(!wire.connects("10.7.0.1:25"));
    assert!(filter.get(List::Deny, "10.7.0.2/32".parse().unwrap()).unwrap().is_some());
    assert!(filter.rule_hits(3).unwrap().hits > hits, "counters survive");
    let in_use = wire.try_open(&wire.settings());
    assert!(matches!(in_use, Err(AttachError::InUse { .. })), "{in_use:?}");

    drop(filter);
    assert!(detach_left_behind(&wire.pin_dir()).unwrap());
    assert!(wire.connects("10.7.0.1:25"));
    assert!(!detach_left_behind(&wire.pin_dir()).unwrap());
}

/// The maps that two processes share, by the hands of one that was killed.
struct Left {
    hash: HashMap<MapData, [u8; 4], [u8; 12]>,
    lines: Array<MapData, [u8; 64]>,
}

impl Left {
    fn by(wire: &Wire) -> Self {
        let pins = wire.pin_dir().join(format!("v{LAYOUT_VERSION}"));
        let pinned = |name| MapData::from_pin(pins.join(name)).unwrap();
        let hash = HashMap::try_from(Map::HashMap(pinned("HOSTS_V4"))).unwrap();
        Self { hash, lines: Array::try_from(Map::Array(pinned("LINES_V4"))).unwrap() }
    }

    /// A host that is denied, and stands in the hash beside its slot.
    fn in_both(wire: &Wire, host: IpNet) -> (Self, Entry) {
        let mut filter = wire.open();
        shut_out(&mut filter);
        let entry = filter.get(List::Deny, host).unwrap().unwrap();
        drop(filter);
        let IpNet::V4(net) = host else { panic!("{host}") };
        let mut left = Self::by(wire);
        left.hash.insert(net.addr().octets(), entry.to_bytes(), 0).unwrap();
        (left, entry)
    }

    fn line_of(host: IpNet) -> u32 {
        let lines = Lines::for_entries(Family::V4, SIZES.deny);
        Place::of(&host.addr().into(), lines).line
    }
}

/// What a process leaves that is killed between the hash and the line, which then says nothing of it.
#[test]
fn a_host_that_was_left_in_the_hash_alone_is_found_by_the_next_start() {
    let wire = Wire::new();
    let host: IpNet = "10.7.0.2/32".parse().unwrap();
    let (mut left, _) = Left::in_both(&wire, host);
    left.lines.set(Left::line_of(host), [0; 64], 0).unwrap();
    assert!(wire.connects("10.7.0.1:25"), "no packet looks there");

    let mut filter = wire.open();
    assert!(!wire.connects("10.7.0.1:25"));
    // It goes whole: neither place is left.
    assert!(filter.remove(List::Deny, host).unwrap());
    assert!(filter.get(List::Deny, host).unwrap().is_none());
    assert!(wire.connects("10.7.0.1:25"));
    assert!(filter.entries(List::Deny).unwrap().iter().all(|(denied, _)| *denied != host));
}

/// What a process leaves that is killed while a host moves from the one to the other.
#[test]
fn a_host_that_was_left_in_slot_and_hash_goes_whole() {
    let host: IpNet = "10.7.0.2/32".parse().unwrap();
    for is_changed_first in [false, true] {
        let wire = Wire::new();
        let (left, entry) = Left::in_both(&wire, host);
        let mut filter = wire.open();
        assert!(!wire.connects("10.7.0.1:25"));
        if is_changed_first {
            filter.put(List::Deny, host, Entry { rule: entry.rule + 1, ..entry }).unwrap();
            let held = filter.entries(List::Deny).unwrap();
            let rules: Vec<u32> =
                held.iter().filter(|(net, _)| *net == host).map(|(_, entry)| entry.rule).collect();
            assert_eq!(rules, [entry.rule + 1]);
        }
        assert!(filter.remove(List::Deny, host).unwrap());
        assert!(wire.connects("10.7.0.1:25"), "the hash still denies it");
        assert!(left.hash.get(&[10, 7, 0, 2], 0).is_err());
        assert!(!filter.remove(List::Deny, host).unwrap());
    }
}

/// A connection that the relay asks about has been judged by no program: it came to another port, or a
/// balancer names its client.
#[test]
fn what_the_relay_asks_about_is_counted_like_a_packet() {
    let wire = Wire::new();
    let mut filter = wire.open();
    filter.set_guarded(Scope::SMTP).unwrap();
    for (rule, host) in [(11, "10.8.0.9/32"), (12, "2001:db8:8:9::/64")] {
        let host: IpNet = host.parse().unwrap();
        let entry = Entry { rule, ..deny(Scope::MX) };
        filter.put(List::Deny, host, entry).unwrap();
        for port in [25, 25, 587] {
            let verdict = filter.judge(host.addr(), port, 0).unwrap();
            assert_eq!(verdict.drops(), port == 25, "{host} {port}");
        }
        assert_eq!(filter.rule_hits(rule).unwrap().hits, 2, "{host}");
        let observed = Entry { scope: Scope::NONE, observed: Scope::MX, ..entry };
        filter.put(List::Deny, host, observed).unwrap();
        assert!(!filter.judge(host.addr(), 25, 0).unwrap().drops());
        let hits = filter.rule_hits(rule).unwrap();
        assert_eq!((hits.hits, hits.observed), (2, 1), "{host}");
        // Whoever is in no list costs the program nothing.
        assert!(filter.judge("192.0.2.1".parse().unwrap(), 25, 0).unwrap().entry().is_none());
    }
}

#[test]
fn lists_of_another_size_are_written_before_they_take_over() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    filter.put(List::Deny, "10.8.0.0/16".parse().unwrap(), deny(Scope::MX)).unwrap();
    filter.put(List::Deny, "10.9.0.0/16".parse().unwrap(), deny(Scope::MX)).unwrap();
    assert!(!wire.connects("10.7.0.1:25"));
    let hits = filter.rule_hits(3).unwrap().hits;
    drop(filter);
    let larger = KernelSettings { sizes: MapSizes { deny: 200, ..SIZES }, ..wire.settings() };
    let mut filter = wire.gateway.enter(|| KernelFilter::open(&larger)).unwrap().unwrap();
    assert_eq!(filter.capacity(), larger.sizes);
    assert!(filter.entries(List::Deny).unwrap().is_empty(), "these lists are to be written");
    assert!(!wire.connects("10.7.0.1:25"), "and the old ones are in force until then");
    shut_out(&mut filter);
    wire.gateway.enter(|| filter.attach()).unwrap().unwrap();
    assert!(!wire.connects("10.7.0.1:25"));
    assert!(filter.rule_hits(3).unwrap().hits > hits, "counters survive");
    drop(filter);
    let filter = wire.try_open(&larger).unwrap();
    assert_eq!(filter.entries(List::Deny).unwrap().len(), 1, "adopted as they are");
}

#[test]
fn lists_that_do_not_fit_the_configured_size_any_more_stay_in_force() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    for prefix in ["10.8.0.0/16", "10.9.0.0/16"] {
        filter.put(List::Deny, prefix.parse().unwrap(), deny(Scope::MX)).unwrap();
    }
    drop(filter);
    let smaller = KernelSettings { sizes: MapSizes { deny: 1, ..SIZES }, ..wire.settings() };
    let refused = wire.try_open(&smaller);
    assert!(matches!(refused, Err(AttachError::Shrunk { entries: 2, room: 1, .. })), "{refused:?}");
    assert!(!wire.connects("10.7.0.1:25"), "what was attached before still is");
    let filter = wire.open();
    assert_eq!(filter.entries(List::Deny).unwrap().len(), 3);
}

#[test]
fn an_exchange_of_maps_that_ended_half_way_leaves_no_mixture_to_adopt() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    drop(filter);
    let larger = KernelSettings { sizes: MapSizes { deny: 200, ..SIZES }, ..wire.settings() };
    let mut filter = wire.gateway.enter(|| KernelFilter::open(&larger)).unwrap().unwrap();
    filter.put(List::Deny, "192.0.2.9/32".parse().unwrap(), deny(Scope::ALL)).unwrap();
    shut_out(&mut filter);
    // A folder in the way ends it where a kill might.
    let pin = wire.pin_dir().join(format!("v{LAYOUT_VERSION}")).join(layout::TOUCHED_V6);
    let aside = pin.with_file_name("aside");
    std::fs::rename(&pin, &aside).unwrap();
    std::fs::create_dir(&pin).unwrap();
    let ended = wire.gateway.enter(|| filter.attach()).unwrap();
    assert!(matches!(ended, Err(AttachError::Bpffs { .. })), "{ended:?}");
    drop(filter);
    std::fs::remove_dir(&pin).unwrap();
    std::fs::rename(&aside, &pin).unwrap();
    // The old meanings say nothing about the new hosts.
    let mut filter = wire.gateway.enter(|| KernelFilter::open(&larger)).unwrap().unwrap();
    assert_eq!(filter.entries(List::Deny).unwrap(), []);
    shut_out(&mut filter);
    assert!(!wire.connects("10.7.0.1:25"), "the new program holds it");
    wire.gateway.enter(|| filter.attach()).unwrap().unwrap();
    assert!(!wire.connects("10.7.0.1:25"));
}

#[test]
fn an_interface_that_was_made_anew_gets_the_lists_of_the_old_one() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
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
    let id = first.program_id();
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
    let native = wire.settings_on(&["lo"]);
    let refused = wire.try_open(&native);
    assert!(matches!(refused, Err(AttachError::NoNative { .. })), "{refused:?}");
    let mut generic = native.clone();
    generic.interfaces[0].generic_permitted = true;
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
    let settings = wire.settings_on(&["eth9"]);
    let error = wire.try_open(&settings).unwrap_err();
    assert_eq!(error.to_string(), "there is no network interface named eth9");
    assert!(
        !wire.pin_dir().join(format!("v{LAYOUT_VERSION}")).exists(),
        "an attempt that failed leaves no folders"
    );
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
            wire::open(&wire.settings()).map(drop)
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
            let filter = wire::open(&wire.settings())?;
            Ok::<_, AttachError>(filter.attachments()[0].mode)
        })
        .unwrap();
    assert_eq!(opened.unwrap_or_else(|error| panic!("{error}")), Mode::Native);
}

#[test]
fn a_filter_is_not_attached_in_another_namespace_than_its_own() {
    let wire = Wire::new();
    let settings = wire.settings();
    let mut filter = wire.gateway.enter(|| KernelFilter::open(&settings)).unwrap().unwrap();
    // The stranger has an eth0, too.
    let refused = wire.stranger.enter(|| filter.attach()).unwrap();
    assert!(matches!(refused, Err(AttachError::OtherNamespace)), "{refused:?}");
    wire.gateway.enter(|| filter.attach()).unwrap().unwrap();
    assert!(wire.link().contains("xdp"));
}
