//! From a source to whoever follows, with a reader of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use relay_common::event::{Event, Fate};
use relay_common::parse::Source;
use tokio::sync::mpsc::Receiver;

use super::hub::{FOLLOWERS_MAX, Hub, LINES_MAX};
use super::reader;
use super::source::{EventSource, Told, in_memory};
use crate::control::api::*;
use crate::edge::clock::Now;

const NOW: Now = Now { wall_ms: 1_800_000_000_500, boot_ms: 50_000_000 };

fn event(last_octet: u8, ago_ms: u64) -> Event {
    Event {
        at_ns: (NOW.boot_ms - ago_ms) * 1_000_000,
        source: Source::from(IpAddr::from([203, 0, 113, last_octet])),
        port: 25,
        fate: Fate::Dropped,
        rule: 7,
        reason: 2,
        prefix_len: 24,
    }
}

fn publish(hub: &Hub, events: &[Event]) {
    hub.publish(events, NOW, |rule| format!("rule {rule}"));
}

fn lines(text: &[u8]) -> Vec<EventLine> {
    let lines = text.split(|&b| b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn taken(receiver: &mut Receiver<Bytes>) -> Vec<EventLine> {
    let mut all = Vec::new();
    while let Ok(text) = receiver.try_recv() {
        all.extend(lines(&text));
    }
    all
}

const FOLLOW: EventsQuery = EventsQuery { last: 0, follow: true };

#[test]
fn an_event_says_when_who_where_and_why() {
    let hub = Hub::new(true);
    let limited = Event { fate: Fate::Limited, rule: 0, reason: 0, prefix_len: 0, ..event(9, 0) };
    let passed = Event { fate: Fate::LimitObserved, ..limited };
    publish(&hub, &[event(9, 250), limited, passed]);
    let mut all = hub.subscribe(EventsQuery { last: 10, follow: false }).unwrap();
    let text = all.try_recv().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&text),
        "{\"time\":\"2027-01-15T08:00:00.250Z\",\"fate\":\"dropped\",\"address\":\"203.0.113.9\",\
         \"port\":25,\"rule\":\"rule 7\",\"reason\":\"dnsbl\",\"prefix\":\"203.0.113.0/24\"}\n\
         {\"time\":\"2027-01-15T08:00:00.500Z\",\"fate\":\"limited\",\"address\":\"203.0.113.9\",\
         \"port\":25,\"rule\":\"connection limit\"}\n\
         {\"time\":\"2027-01-15T08:00:00.500Z\",\"fate\":\"observed\",\"address\":\"203.0.113.9\",\
         \"port\":25,\"rule\":\"connection limit\"}\n"
    );
    assert!(all.blocking_recv().is_none(), "without follow the answer ends");
}

#[test]
fn the_latest_are_kept_and_no_more() {
    let hub = Hub::new(true);
    for octet in 0..=255 {
        publish(&hub, &[event(octet, 0); 5]);
    }
    let of = |last| taken(&mut hub.subscribe(EventsQuery { last, follow: false }).unwrap());
    assert_eq!((of(0).len(), of(3).len(), of(usize::MAX).len()), (0, 3, EVENTS_KEPT));
    let EventLine::Packet(last) = of(1).remove(0) else { panic!("no packet") };
    assert_eq!(last.address.to_string(), "203.0.113.255");
}

#[test]
fn a_slow_follower_loses_lines_is_told_how_many_and_hinders_nobody() {
    let hub = Hub::new(true);
    let (mut slow, mut quick) = (hub.subscribe(FOLLOW).unwrap(), hub.subscribe(FOLLOW).unwrap());
    let mut seen = 0;
    for _ in 0..LINES_MAX + 40 {
        publish(&hub, &[event(1, 0)]);
        seen += taken(&mut quick).len();
    }
    assert_eq!(seen, LINES_MAX + 40);
    // Room for one line is not room for the gap and the line behind it.
    slow.try_recv().unwrap();
    publish(&hub, &[event(1, 0)]);
    assert_eq!(taken(&mut slow).len(), LINES_MAX - 1);
    publish(&hub, &[event(2, 0)]);
    let after = taken(&mut slow);
    assert_eq!(after[0], EventLine::Lost { lost: 41 });
    assert!(matches!(&after[1..], [EventLine::Packet(_)]), "{after:?}");
    // A gap at the end of a flood is told without another event.
    (0..=LINES_MAX).for_each(|_| publish(&hub, &[event(3, 0)]));
    assert_eq!(taken(&mut slow).len(), LINES_MAX);
    publish(&hub, &[]);
    assert_eq!(taken(&mut slow), [EventLine::Lost { lost: 1 }]);
}

#[test]
fn followers_are_bounded_and_one_that_left_makes_room() {
    let hub = Hub::new(true);
    let mut all: Vec<_> = (0..FOLLOWERS_MAX).map(|_| hub.subscribe(FOLLOW).unwrap()).collect();
    assert_eq!(hub.subscribe(FOLLOW).unwrap_err().code, Code::Busy);
    hub.subscribe(EventsQuery::default()).unwrap();
    all.pop();
    let mut last = hub.subscribe(FOLLOW).unwrap();
    hub.close();
    assert!(last.blocking_recv().is_none(), "a hub that closes ends its answers");
    assert!(hub.subscribe(FOLLOW).unwrap().blocking_recv().is_none());
}

#[test]
fn the_frequent_are_told_by_fate_and_fade() {
    let hub = Hub::new(true);
    let observed = Event { fate: Fate::Observed, ..event(8, 0) };
    let v6 = Source::from("2001:db8:1:66::9".parse::<IpAddr>().unwrap());
    let v6 = Event { source: v6, port: 587, ..event(0, 0) };
    publish(&hub, &[event(9, 0), event(9, 0), event(9, 0), observed, v6]);
    let top = hub.top(NOW);
    let told = |entries: &[TopEntry]| -> Vec<String> {
        let line = |e: &TopEntry| format!("{} {} {}", e.what, e.fate, e.percent);
        entries.iter().map(line).collect()
    };
    let (nine, eight) = ("203.0.113.9 dropped 60", "203.0.113.8 observed 20");
    assert_eq!(told(&top.sources), [nine, eight, "2001:db8:1:66::/64 dropped 20"]);
    assert_eq!(told(&top.networks)[0], "203.0.113.0/24 dropped 60");
    assert_eq!(told(&top.networks)[2], "2001:db8:1::/48 dropped 20");
    assert_eq!(told(&top.ports)[0], "25 dropped 60");
    let later = Now { boot_ms: NOW.boot_ms + 30_000, ..NOW };
    assert!((hub.top(later).sources[0].per_s - top.sources[0].per_s / 2.0).abs() < 0.02);
    let much_later = Now { boot_ms: NOW.boot_ms + 600_000, ..NOW };
    assert_eq!(hub.top(much_later).sources, []);
}

#[test]
fn the_budget_in_memory_holds_for_each_second_and_a_full_queue_loses() {
    let (mut teller, mut inbox) = in_memory();
    let told: Vec<Told> = (0..3).map(|_| teller.tell(event(1, 0), 2)).collect();
    assert_eq!(told, [Told::Told, Told::Told, Told::LeftOut]);
    let next_second = Event { at_ns: event(1, 0).at_ns + 1_000_000_000, ..event(1, 0) };
    assert_eq!(teller.tell(next_second, 2), Told::Told);
    while teller.tell(event(1, 0), u32::MAX) == Told::Told {}
    assert_eq!(teller.tell(event(1, 0), u32::MAX), Told::Lost);
    let mut events = Vec::new();
    inbox.read(5, Duration::ZERO, &mut events).unwrap();
    assert_eq!(events.len(), 5, "no more than was asked for");
    drop(teller);
    let end = std::iter::repeat_with(|| inbox.read(500, Duration::ZERO, &mut events));
    assert!(end.take(10).any(|read| read.is_err()), "a source without an end says so");
}

#[test]
fn the_reader_names_rules_and_goes_on_when_the_owner_has_no_time() {
    let (mut teller, inbox) = in_memory();
    let hub = Arc::new(Hub::new(true));
    let mut follower = hub.subscribe(FOLLOW).unwrap();
    let (asked, asks) = std::sync::mpsc::channel();
    let ask = move |slots: Vec<u32>| {
        asked.send(slots.clone()).unwrap();
        let busy = slots.contains(&9);
        (!busy).then(|| slots.iter().map(|slot| (*slot, format!("cli {slot}"))).collect())
    };
    let reader = reader::start(Box::new(inbox), hub.clone(), Box::new(ask), || NOW).unwrap();
    let mut rule_of = |rule| {
        assert_eq!(teller.tell(Event { rule, ..event(1, 0) }, u32::MAX), Told::Told);
        let text = follower.blocking_recv().unwrap();
        let EventLine::Packet(packet) = lines(&text).remove(0) else { panic!("no packet") };
        packet.rule
    };
    assert_eq!(rule_of(7), "cli 7");
    assert_eq!(rule_of(7), "cli 7");
    assert_eq!(rule_of(9), "rule 9");
    assert_eq!(rule_of(8), "rule 8", "the owner is left in peace for a while");
    assert_eq!(rule_of(7), "cli 7");
    assert_eq!(rule_of(0), "one of those that share a counter");
    drop(reader);
    assert_eq!(asks.try_iter().collect::<Vec<_>>(), [vec![7], vec![9]]);
}
