//! Pins that somebody removes under a running edge.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};
use postern::edge::filter::Filter;
use postern::edge::kernel::{AttachError, Counters, KernelFilter};
use relay_common::layout::{self, LAYOUT_VERSION};
use relay_common::parse::Family;
use relay_common::totals::{COUNTERS, Counter};

use crate::wire::{Wire, shut_out};

#[test]
fn pins_that_somebody_removes_are_made_anew() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    let dir = wire.pin_dir().join(format!("v{LAYOUT_VERSION}"));
    let pinned = |dir: &Path| fs::read_dir(dir).map_or(0, Iterator::count);
    let all = pinned(&dir);
    let some = [layout::CONTROL, layout::CPU, "link_eth0"].map(|name| dir.join(name));
    let renewed = |filter: &mut KernelFilter| {
        wire.gateway.enter(|| filter.keep_attached()).unwrap().pins.unwrap()
    };
    assert_eq!(renewed(&mut filter), 0);
    // Some of them, and then all, with the folder.
    some.iter().for_each(|pin| fs::remove_file(pin).unwrap());
    assert_eq!(renewed(&mut filter), some.len());
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(renewed(&mut filter), all);
    assert_eq!((pinned(&dir), renewed(&mut filter)), (all, 0));
    // Nobody else may take it over meanwhile, and the next one does without a gap.
    let other = wire.gateway.enter(|| KernelFilter::open(&wire.settings())).unwrap();
    assert!(matches!(other, Err(AttachError::InUse { .. })), "{other:?}");
    drop(filter);
    assert!(!wire.connects("10.7.0.1:25"), "the new pins hold it");
    let next = wire.open();
    assert!(next.adopts());
    next.detach().unwrap();
}

#[test]
fn pins_that_cannot_be_made_anew_are_told_and_tried_again() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    let dir = wire.pin_dir().join(format!("v{LAYOUT_VERSION}"));
    fs::remove_dir_all(&dir).unwrap();
    let other = wire.gateway.enter(|| KernelFilter::open(&wire.settings())).unwrap();
    // The interface is taken, so this one cannot come up; but it has the folder.
    let other = other.map(|_| ()).unwrap_err();
    assert!(matches!(other, AttachError::Occupied { .. }), "{other}");
    fs::create_dir_all(&dir).unwrap();
    let lock = fs::File::open(&dir).unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    let kept = wire.gateway.enter(|| filter.keep_attached()).unwrap();
    assert!(kept.pins.unwrap_err().to_string().contains("another"), "whose they are");
    drop(lock);
    let kept = wire.gateway.enter(|| filter.keep_attached()).unwrap();
    assert!(kept.pins.unwrap() > 0);
    filter.detach().unwrap();
}

#[test]
fn a_folder_in_the_place_of_a_pin_is_no_pin_and_holds_up_no_other() {
    let wire = Wire::new();
    let mut filter = wire.open();
    let dir = wire.pin_dir().join(format!("v{LAYOUT_VERSION}"));
    let [link, totals] = ["link_eth0", layout::CPU].map(|name| dir.join(name));
    for in_the_way in [&link, &totals] {
        for pin in [&link, &totals] {
            fs::remove_file(pin).unwrap();
        }
        fs::create_dir(in_the_way).unwrap();
        let kept = wire.gateway.enter(|| filter.keep_attached()).unwrap();
        assert!(
            kept.pins.unwrap_err().to_string().contains(dir.to_str().unwrap()),
            "what is in the way"
        );
        assert_eq!(link.is_file(), in_the_way != &link);
        assert_eq!(totals.is_file(), in_the_way != &totals);
        fs::remove_dir(in_the_way).unwrap();
        let kept = wire.gateway.enter(|| filter.keep_attached()).unwrap();
        assert_eq!(kept.pins.unwrap(), 1);
    }
    // An interface that is made anew is guarded, whatever its link can be pinned as.
    fs::remove_file(&link).unwrap();
    fs::create_dir(&link).unwrap();
    wire.gateway.run("ip", &["link", "del", "eth0"]).unwrap();
    wire.plug();
    shut_out(&mut filter);
    let kept = wire.gateway.enter(|| filter.keep_attached()).unwrap();
    assert!(kept.pins.is_err() && !wire.connects("10.7.0.1:25"));
    fs::remove_dir(&link).unwrap();
    let kept = wire.gateway.enter(|| filter.keep_attached()).unwrap();
    assert_eq!((kept.again.len(), kept.pins.unwrap()), (0, 1));
    drop(filter);
    assert!(!wire.connects("10.7.0.1:25"), "the link holds it");
    wire.open().detach().unwrap();
}

/// Layouts up to 4 had a slot for each counter.
#[test]
fn what_a_filter_of_another_layout_has_counted_is_read() {
    let wire = Wire::new();
    let mut filter = wire.open();
    shut_out(&mut filter);
    assert!(!wire.connects("10.7.0.1:25"));
    let counted = filter.totals().unwrap();
    assert!(counted.dropped(Family::V4) > 0);
    drop(filter);
    let own = wire.pin_dir().join(format!("v{LAYOUT_VERSION}"));
    assert_eq!(Counters::left_in(&wire.pin_dir()).unwrap().unwrap().totals().unwrap(), counted);
    assert!(Counters::of_another_layout(&wire.pin_dir()).unwrap().is_none());
    // A later one, of which no more is known than that its counters are as here.
    let other = own.with_file_name("v50");
    fs::rename(&own, &other).unwrap();
    let left = Counters::of_another_layout(&wire.pin_dir()).unwrap().unwrap();
    assert_eq!(left.totals().unwrap(), counted);
    // And an earlier one.
    fs::remove_file(other.join(layout::CPU)).unwrap();
    assert!(Counters::left_in(&wire.pin_dir()).unwrap().is_none());
    let pin = other.join("TOTALS").display().to_string();
    let run = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        assert!(Command::new("bpftool").args(&words).status().unwrap().success(), "{words:?}");
    };
    let kind = format!("type percpu_array key 4 value 8 entries {COUNTERS} name TOTALS");
    run(&format!("map create {pin} {kind}"));
    let key = Counter::NotIp.index();
    run(&format!("map update pinned {pin} key {key} 0 0 0 value 7 0 0 0 0 0 0 0"));
    let left = Counters::left_in(&wire.pin_dir()).unwrap().unwrap();
    // In each CPU's slot.
    let not_ip = left.totals().unwrap().get(Counter::NotIp);
    assert!(not_ip >= 7 && not_ip.is_multiple_of(7), "{not_ip}");
}
