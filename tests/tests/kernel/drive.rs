//! The driver that measurements rest on gives each frame the next of its sources.

use std::net::IpAddr;

use postern::edge::filter::Filter;
use postern::edge::kernel::{Answer, Drive, Program};
use relay_common::entry::{Entry, List, Reason, Scope};

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

fn entry(rule: u32) -> Entry {
    Entry::new(Scope::MX, Reason::Manual, rule)
}
