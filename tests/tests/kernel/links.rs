//! The kernel tells of interfaces that come, go and change, and the edge looks at once.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use postern::edge::clock;
use postern::edge::daemon::{self, EdgeThread};
use postern::edge::filter::{Filter, MapSizes};
use postern::edge::kernel::{KernelFilter, KernelSettings};
use postern::edge::lines::Line;
use postern::edge::links::{self, LinkEvents};
use postern::edge::state::{Edge, EdgeSettings};
use postern_tests::prober::Prober;
use postern_tests::process::until;
use relay_common::entry::{List, Scope};
use socket2::SockRef;
use tokio::runtime::Runtime;

use crate::wire::Wire;

const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
const MX: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 7, 0, 1), 25);

/// An edge that denies the stranger, and would look by itself once in an hour.
fn edge(wire: &Wire, folder: &Path) -> (Runtime, EdgeThread<KernelFilter>) {
    let settings = EdgeSettings {
        rows: vec![(List::Deny, vec![Line::new("10.7.0.2/32".parse().unwrap(), Scope::MX)])],
        look_every: Duration::from_secs(3_600),
        ..EdgeSettings::new(folder.join("lists.db"))
    };
    let sizes = MapSizes { allow: 100, deny: 100, ..MapSizes::default() };
    let kernel = KernelSettings { sizes, ..wire.settings() };
    let runtime = Runtime::new().unwrap();
    // The owner's thread is of the namespace that it is started in.
    let owner = wire.gateway.enter(|| {
        let mut filter = KernelFilter::open(&kernel).unwrap();
        let events = filter.link_events().unwrap();
        let protected = Box::new(Default::default);
        let edge = Edge::open(settings, filter, Box::new(clock::system), protected).unwrap();
        let owner = daemon::start(edge).unwrap();
        drop(runtime.spawn(links::watch(events, owner.handle())));
        owner
    });
    (runtime, owner.unwrap())
}

#[test]
fn an_interface_made_anew_is_guarded_without_waiting_for_the_next_look() {
    let (wire, folder) = (Wire::new(), tempfile::tempdir().unwrap());
    let (runtime, owner) = edge(&wire, folder.path());
    let status = || runtime.block_on(owner.handle().status()).unwrap();
    for times in 1..=3 {
        wire.gateway.run("ip", &["link", "del", "eth0"]).unwrap();
        wire.plug();
        until("the new interface to be guarded", || {
            Ok((status().health.reattached == times).then_some(()))
        })
        .unwrap();
        assert!(wire.link().contains("prog/xdp"));
    }
    let prober = Prober::start(&wire.stranger, STRANGER, MX).unwrap();
    prober.after(100).unwrap();
    assert_eq!(prober.finish().unwrap().answered, 0);

    for words in ["set eth0 down", "set eth0 name wan0", "set wan0 up", "del wan0"] {
        let before = status().health.links_told;
        let words = format!("link {words}");
        wire.gateway.run("ip", &words.split(' ').collect::<Vec<_>>()).unwrap();
        until(&format!("a look after {words}"), || {
            Ok((status().health.links_told > before).then_some(()))
        })
        .unwrap();
    }
    owner.stop().unwrap().end(true).unwrap();
}

#[test]
fn more_news_than_the_socket_holds_are_one_call_to_look_and_nothing_is_missed_afterwards() {
    let wire = Wire::new();
    let events = wire.gateway.enter(LinkEvents::open).unwrap().unwrap();
    assert!(!events.drain().unwrap().any, "nothing has happened yet");
    SockRef::from(&events).set_recv_buffer_size(4_096).unwrap();
    let batch = wire.pins.path().join("batch");
    let change = |mtu: u32| format!("link set dev eth0 mtu {mtu}\n");
    fs::write(&batch, (1_000..1_200).map(change).collect::<String>()).unwrap();
    wire.gateway.run("ip", &["-batch", batch.to_str().unwrap()]).unwrap();
    assert!(events.drain().unwrap().any);
    assert!(!events.drain().unwrap().any, "all of it was one call");
    wire.gateway.run("ip", &["link", "set", "eth0", "mtu", "1400"]).unwrap();
    assert!(events.drain().unwrap().any);
}

#[test]
fn another_namespace_is_none_of_its_business() {
    let wire = Wire::new();
    let events = wire.gateway.enter(LinkEvents::open).unwrap().unwrap();
    wire.stranger.run("ip", &["link", "set", "lo", "mtu", "9000"]).unwrap();
    assert!(!events.drain().unwrap().any);
    wire.gateway.run("ip", &["link", "set", "lo", "mtu", "9000"]).unwrap();
    assert!(events.drain().unwrap().any);
}
