//! The driver that measurements rest on gives each frame the next of its sources.

use std::net::IpAddr;

use ipnet::IpNet;
use postern::edge::filter::Filter;
use postern::edge::kernel::{Answer, Drive, Plain, Program};
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::parse::Family;

use crate::frames::Frame;

#[test]
fn each_source_has_its_turn() {
    for (base, family) in [("192.0.2.", "0.0.0.0/0"), ("2001:db8::", "::/0")] {
        let mut probe = crate::probe();
        let source = |host: u8| -> IpAddr { format!("{base}{host}").parse().unwrap() };
        let sources: Vec<IpAddr> = (1..=7).map(source).collect();
        for (rule, &source) in (1..).zip(&sources) {
            probe.filter.put(List::Deny, source.into(), entry(rule)).unwrap();
        }
        probe.filter.put(List::Deny, family.parse().unwrap(), entry(0)).unwrap();
        probe.filter.set_guarded(Scope::MX).unwrap();
        let frame = Frame::tcp(source(99), 25).bytes();
        let drive = Drive::new(&frame, &sources).unwrap();
        let program = probe.program().unwrap();
        assert!(drive.run(&program, 7 * 10 + 3).unwrap().drops);
        let hits = |rule| probe.filter.rule_hits(rule).unwrap().hits;
        assert_eq!((0..=8).map(hits).collect::<Vec<_>>(), [0, 11, 11, 11, 10, 10, 10, 10, 0]);
    }
}

#[test]
fn another_program_is_driven_too_and_answers_for_itself() {
    let source: IpAddr = "192.0.2.1".parse().unwrap();
    let drive = Drive::new(&Frame::tcp(source, 25).bytes(), &[source]).unwrap();
    for (answer, drops) in [(Answer::Drop, true), (Answer::Pass, false)] {
        assert_eq!(drive.run(&Program::answering(answer).unwrap(), 9).unwrap().drops, drops);
    }
}

#[test]
fn sources_of_another_family_are_refused() {
    let frame = Frame::tcp("192.0.2.1".parse().unwrap(), 25).bytes();
    Drive::new(&frame, &["2001:db8::1".parse().unwrap()]).unwrap_err();
    Drive::new(&frame, &[]).unwrap_err();
    Drive::new(&frame[..30], &["192.0.2.1".parse().unwrap()]).unwrap_err();
}

#[test]
fn what_a_list_is_compared_with_drops_as_it_should() {
    for source in ["192.0.2.1", "2001:db8::1"] {
        let source: IpAddr = source.parse().unwrap();
        let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
        let drive = Drive::new(&Frame::tcp(source, 25).bytes(), &[source]).unwrap();
        let drops = |program: Program| drive.run(&program, 3).unwrap().drops;
        for words in [None, Some(2), Some(1 << 19)] {
            assert!(drops(Program::of_one_load(family, words).unwrap()));
        }
        for words in [0, 1, 3, 1 << 30] {
            assert!(Program::of_one_load(family, Some(words)).is_err(), "{words} words");
        }
        let host = IpNet::new(source, family.host_len()).unwrap().trunc();
        for plain in [Plain::Hash, Plain::Trie] {
            let listed = Program::looking_up(plain, family, &[(host, entry(1))]).unwrap();
            assert!(drops(listed), "{plain:?}");
        }
    }
}

fn entry(rule: u32) -> Entry {
    Entry::new(Scope::MX, Reason::Manual, rule)
}
