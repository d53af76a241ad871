use std::sync::Arc;

use proptest::prelude::*;

use super::super::{Answer, AuthMode, SessionSettings};
use super::*;

#[expect(clippy::disallowed_methods, reason = "there is no other way to an Instant to count from")]
fn start() -> Instant {
    Instant::now()
}

const BOTH: Upstream = Upstream { xclient: true, xforward: true };

fn session(upstream: Upstream) -> (Session, Instant) {
    let settings = SessionSettings { auth: AuthMode::Offer, ..SessionSettings::default() };
    let now = start();
    let mut session = Session::new(Arc::new(settings), None, now);
    session.permit(upstream);
    session.greet(now);
    (session, now)
}

/// Says it; the replies and the other effects, every question answered `named`.
fn say(session: &mut Session, now: Instant, text: &str, named: &Result<Upstream, Reply>) -> String {
    session.push(text.as_bytes(), now);
    let mut said = String::new();
    while let Some(effect) = session.next_effect(now) {
        match effect {
            Effect::Reply(reply) => said.push_str(&reply.to_string()),
            Effect::NameClient(_) => session.answer(Answer::ClientNamed(named.clone()), now),
            Effect::CheckMail(_) => {
                session.answer(Answer::Mail(super::super::Verdict::Accept), now);
            }
            _ => {}
        }
    }
    said
}

fn facts(verb: Verb, text: &str) -> Option<ClientFacts> {
    ClientFacts::parse(verb, text.as_bytes())
}

#[test]
fn attributes_are_read_as_the_readmes_say() {
    let text = " NAME=spike.example ADDR=IPV6:2001:db8::7 PORT=4711 PROTO=esmtp HELO=a+20b \
                LOGIN=ann DESTADDR=192.0.2.1 DESTPORT=25 REVERSE_NAME=[TEMPUNAVAIL]";
    let known = |text: &str| Some(Told::Known(text.to_owned()));
    let expected = ClientFacts {
        name: known("spike.example"),
        address: Some(Told::Known("2001:db8::7".parse().unwrap())),
        port: Some(Told::Known(4711)),
        protocol: known("ESMTP"),
        helo: known("a b"),
        login: known("ann"),
        destination: Some(Told::Known("192.0.2.1".parse().unwrap())),
        destination_port: Some(Told::Known(25)),
        ident: None,
    };
    assert_eq!(facts(Verb::Xclient, text), Some(expected));
    let forwarded =
        facts(Verb::Xforward, " name=[unavailable] addr=::ffff:1 ident=4X source=LOCAL");
    assert_eq!(forwarded, None, "an IPv6 address needs its prefix");
    let forwarded = facts(Verb::Xforward, " name=[unavailable] addr=[TEMPUNAVAIL] ident=4X");
    let forwarded = forwarded.unwrap();
    assert_eq!(forwarded.name, Some(Told::Unavailable));
    assert_eq!(forwarded.address, Some(Told::TemporarilyUnavailable));
    assert_eq!(forwarded.ident, known("4X"));
}

#[test]
fn bad_attributes_are_refused_whole() {
    for (verb, text) in [
        (Verb::Xclient, ""),
        (Verb::Xclient, " "),
        (Verb::Xclient, " ADDR"),
        (Verb::Xclient, " ADDR="),
        (Verb::Xclient, " ADDR=192.0.2.1.5"),
        (Verb::Xclient, " ADDR=0.0.0.0"),
        (Verb::Xclient, " ADDR=2001:db8::1"),
        (Verb::Xclient, " ADDR=IPV6:192.0.2.1"),
        (Verb::Xclient, " ADDR=192.0.2.1 addr=192.0.2.2"),
        (Verb::Xclient, " PORT=025"),
        (Verb::Xclient, " PORT=65536"),
        (Verb::Xclient, " PROTO=LMTP"),
        (Verb::Xclient, " HELO=a+0D+0Ab"),
        (Verb::Xclient, " HELO=a+0d"),
        (Verb::Xclient, " HELO=a+0"),
        (Verb::Xclient, " NAME=a(b)"),
        (Verb::Xclient, " IDENT=x"),
        (Verb::Xclient, " SHOE=45"),
        (Verb::Xforward, " LOGIN=ann"),
        (Verb::Xforward, " DESTADDR=192.0.2.1"),
    ] {
        assert_eq!(facts(verb, text), None, "{verb:?}{text}");
    }
}

#[test]
fn offered_and_taken_only_where_permitted() {
    let named = Ok(Upstream::default());
    for (upstream, xclient, xforward) in [
        (Upstream::default(), false, false),
        (Upstream { xclient: true, xforward: false }, true, false),
        (Upstream { xclient: false, xforward: true }, false, true),
    ] {
        let (mut session, now) = session(upstream);
        let hello = say(&mut session, now, "EHLO a\r\n", &named);
        assert_eq!(hello.contains("XCLIENT NAME ADDR"), xclient, "{hello}");
        assert_eq!(hello.contains("XFORWARD NAME ADDR"), xforward, "{hello}");
        let refused = "550 5.7.0 You may not speak for others\r\n";
        let said = say(&mut session, now, "XFORWARD ADDR=192.0.2.1\r\n", &named);
        assert_eq!(said, if xforward { "250 2.0.0 Ok\r\n" } else { refused });
        let said = say(&mut session, now, "xclient ADDR=192.0.2.1\r\n", &named);
        if xclient {
            assert!(said.ends_with("220 localhost ESMTP Postern\r\n"), "{said}");
        } else {
            assert_eq!(said, refused);
        }
    }
}

#[test]
fn the_session_begins_anew_with_what_was_told() {
    let (mut session, now) = session(BOTH);
    let named = Ok(Upstream::default());
    say(&mut session, now, "EHLO a\r\n", &named);
    say(&mut session, now, "XFORWARD ADDR=192.0.2.9\r\n", &named);
    say(&mut session, now, "XCLIENT LOGIN=ann ADDR=192.0.2.1 HELO=b PROTO=SMTP\r\n", &named);
    assert_eq!(session.account(), Some("ann"));
    assert_eq!(session.helo(), Some(&Helo { name: "b".to_owned(), extended: false }));
    assert_eq!(session.forwarded(), None);
    // The client that was named may not name another.
    let said = say(&mut session, now, "XCLIENT ADDR=192.0.2.2\r\n", &named);
    assert!(said.starts_with("550 "), "{said}");
    assert!(say(&mut session, now, "EHLO c\r\n", &named).starts_with("250-"));
}

#[test]
fn nothing_of_the_host_is_left_to_the_client() {
    let (mut session, now) = session(BOTH);
    let still = Ok(BOTH);
    say(&mut session, now, "EHLO a\r\n", &still);
    say(&mut session, now, "XCLIENT LOGIN=ann\r\n", &still);
    assert_eq!((session.account(), session.helo()), (Some("ann"), None));
    say(&mut session, now, "XCLIENT ADDR=192.0.2.1\r\n", &still);
    assert_eq!((session.account(), session.helo()), (None, None));
    assert!(say(&mut session, now, "MAIL FROM:<a@b>\r\n", &still).starts_with("503 "));
}

#[test]
fn not_within_a_transaction_and_not_with_a_tail() {
    let named = Ok(BOTH);
    let (mut session, now) = session(BOTH);
    say(&mut session, now, "EHLO a\r\n", &named);
    say(&mut session, now, "MAIL FROM:<a@b>\r\n", &named);
    for command in ["XCLIENT ADDR=192.0.2.1\r\n", "XFORWARD ADDR=192.0.2.1\r\n"] {
        assert!(say(&mut session, now, command, &named).starts_with("503 "), "{command}");
    }
    say(&mut session, now, "RSET\r\n", &named);
    let said = say(&mut session, now, "XCLIENT ADDR=192.0.2.1\r\nEHLO x\r\n", &named);
    assert!(said.starts_with("554 ") && session.is_closed(), "{said}");
}

#[test]
fn a_named_client_that_is_not_welcome_ends_the_session() {
    let (mut session, now) = session(BOTH);
    let refused = Err(Reply::new(554, (5, 7, 1), "Not you"));
    let said = say(&mut session, now, "XCLIENT ADDR=192.0.2.1\r\n", &refused);
    assert!(said.ends_with("554 5.7.1 Not you\r\n") && session.is_closed());
}

#[test]
fn what_is_forwarded_adds_up_until_rset() {
    let (mut session, now) = session(BOTH);
    let named = Ok(BOTH);
    say(&mut session, now, "EHLO a\r\n", &named);
    let group = "XFORWARD NAME=x.example\r\nXFORWARD ADDR=192.0.2.1 NAME=y.example\r\n";
    say(&mut session, now, group, &named);
    let told = session.forwarded().unwrap();
    assert_eq!(told.name, Some(Told::Known("y.example".to_owned())));
    assert!(told.address.is_some());
    say(&mut session, now, "RSET\r\n", &named);
    assert_eq!(session.forwarded(), None);
}

proptest! {
    #[test]
    fn any_octets_are_read_or_refused(
        octets in prop::collection::vec(any::<u8>(), 0..80), words in "( ?(ADDR|HELO|NAME)=[+0-9A-F.]{0,9}){0,4}",
    ) {
        for verb in [Verb::Xclient, Verb::Xforward] {
            let _read_or_refused = ClientFacts::parse(verb, &octets);
            let text = format!(" {words}");
            if let Some(Told::Known(helo)) = facts(verb, &text).and_then(|facts| facts.helo) {
                prop_assert!(helo.bytes().all(|octet| matches!(octet, b' '..=b'~')));
            }
        }
    }
}
