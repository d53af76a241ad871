use proptest::prelude::*;

use super::*;
use crate::policy::Outcome;

struct World {
    domains: DomainTable,
    grants: ListenerGrants,
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn world() -> World {
    let mut domains = DomainTable::new();
    domains.insert("ours.example", Route::Inbound).unwrap();
    domains.insert("*.partner.example", Route::Relay).unwrap();
    domains.insert("no.example", Route::Reject).unwrap();
    World { domains, grants: ListenerGrants { listener: "mx".to_owned(), ..Default::default() } }
}

impl World {
    fn source(&self) -> SourceFacts<'_> {
        SourceFacts {
            source: "203.0.113.9".parse().unwrap(),
            local: "198.51.100.1".parse().unwrap(),
            user: None,
            account: None,
            reverse_name: ReverseName::None,
            never_route: None,
            grants: &self.grants,
        }
    }

    fn ask(&self, from: SourceFacts<'_>, recipient: RecipientView<'_>) -> Decision<Accepted> {
        decide(&RelayFacts { recipient, from, domains: &self.domains, bare_postmaster: true })
    }
}

fn to<'a>(local: &'a str, domain: &'a str) -> RecipientView<'a> {
    let domain = DomainView::Name(domain);
    RecipientView { local, quoted: false, domain }
}

/// The classic probes, each as a session would have parsed it.
fn tricks() -> Vec<RecipientView<'static>> {
    let literal = |local| {
        let domain = DomainView::Literal(Some("198.51.100.1".parse().unwrap()));
        RecipientView { local, quoted: false, domain }
    };
    let bare = |local, quoted| RecipientView { local, quoted, domain: DomainView::Absent };
    let quoted = |recipient| RecipientView { quoted: true, ..recipient };
    vec![
        to("user", "foreign.example"),
        to("user", "FOREIGN.example."),
        to("user", "ours.example.foreign.example"),
        to("user", "fooours.example"),
        to("user", "partner.example"),
        to("user", "ours.example.."),
        to("user%foreign.example", "ours.example"),
        to("user%foreign.example", "OURS.EXAMPLE."),
        to("user%foreign.example", "a.partner.example"),
        to("foreign.example!user", "ours.example"),
        to("user＠foreign.example", "ours.example"),
        quoted(to("user@foreign.example", "ours.example")),
        quoted(to("user%foreign.example", "ours.example")),
        quoted(to("@foreign.example:user", "ours.example")),
        literal("user"),
        literal("user%foreign.example"),
        literal("foreign.example!user"),
        RecipientView { local: "user", quoted: false, domain: DomainView::Literal(None) },
        bare("user", false),
        bare("user@foreign.example", true),
        bare("user%foreign.example", true),
        bare("foreign.example!user", false),
    ]
}

#[test]
fn every_trick_gets_the_same_reply() {
    let world = world();
    for recipient in tricks() {
        let decision = world.ask(world.source(), recipient);
        assert_eq!(decision.refusal(), Some(&RELAYING_IS_PROHIBITED), "{recipient:?}");
        assert_eq!(decision.evidence, Some(Reason::RelayProbe), "{recipient:?}");
        assert!(!decision.rule.is_empty() && !decision.reason.is_empty());
    }
}

#[test]
fn our_domains_are_open_to_everyone() {
    let world = world();
    let ask = |r| world.ask(world.source(), r);
    for recipient in [
        to("user", "ours.example"),
        to("user", "Ours.Example."),
        to("user+tag", "ours.example"),
        to("user", "ｏｕｒｓ.example"),
        RecipientView { quoted: true, ..to("john doe", "ours.example") },
        RecipientView { domain: DomainView::Absent, ..to("PostMaster", "") },
    ] {
        assert_eq!(ask(recipient).accepted(), Some(&Accepted::Inbound), "{recipient:?}");
    }
    assert_eq!(ask(to("u", "x.partner.example")).accepted(), Some(&Accepted::RelayDomain));
}

#[test]
fn the_postmaster_is_never_a_probe() {
    let world = world();
    let recipient = RecipientView { domain: DomainView::Absent, ..to("Postmaster", "") };
    let from = world.source();
    let facts = RelayFacts { recipient, from, domains: &world.domains, bare_postmaster: false };
    let decision = decide(&facts);
    assert_eq!(decision.refusal(), Some(&RELAYING_IS_PROHIBITED));
    assert_eq!(decision.evidence, None);
}

#[test]
fn a_rejected_domain_is_refused_even_to_those_who_may_relay() {
    let mut world = world();
    world.grants.authenticated = true;
    let from = SourceFacts { account: Some("alice"), ..world.source() };
    let decision = world.ask(from, to("user", "no.example"));
    assert_eq!(decision.refusal().map(|r| (r.code, r.enhanced)), Some((550, (5, 7, 1))));
    assert_eq!(decision.evidence, None);
    assert_eq!(decision.rule, "domain no.example (reject)");
}

/// Loopback stands in for the address that it has not, and no list of addresses is about it.
#[test]
fn a_local_user_relays_by_name_alone_and_never_proves_anything() {
    let mut world = world();
    let foreign = to("user", "foreign.example");
    let from = |world: &World, uid| {
        let source = "127.0.0.1".parse().unwrap();
        let facts = SourceFacts { source, local: source, user: Some(uid), ..world.source() };
        world.ask(facts, foreign)
    };
    world.grants.sources = Sources::everyone();
    world.grants.internal_addresses = vec!["127.0.0.1".parse().unwrap()];
    let refused = from(&world, 33);
    assert_eq!((refused.refusal(), refused.evidence), (Some(&RELAYING_IS_PROHIBITED), None));
    world.grants.users = vec![LocalUser { uid: 33, name: "www-data".to_owned() }];
    let granted = from(&world, 33);
    assert_eq!(granted.accepted(), Some(&Accepted::Granted));
    assert_eq!(granted.rule, "relay list user www-data on listener mx");
    assert!(from(&world, 34).refusal().is_some());
}

#[test]
fn any_one_grant_suffices_and_names_itself() {
    let foreign = to("user", "foreign.example");
    let check = |change: fn(&mut World), from: fn(&mut SourceFacts<'_>), rule: Option<&str>| {
        let mut world = world();
        change(&mut world);
        let mut source = world.source();
        from(&mut source);
        let decision = world.ask(source, foreign);
        assert_eq!(decision.accepted(), rule.map(|_| &Accepted::Granted));
        assert_eq!(rule.is_none(), decision.rule == "closed by default");
        if let Some(rule) = rule {
            assert_eq!(decision.rule, rule);
        }
    };
    let auth: fn(&mut World) = |w| w.grants.authenticated = true;
    check(auth, |s| s.account = Some("alice"), Some("relay for authenticated on listener mx"));
    check(auth, |_| (), None);
    check(|_| (), |s| s.account = Some("alice"), None);

    let list: fn(&mut World) = |w| {
        w.grants.sources =
            Sources::Only([(net("10.0.0.0/8"), "office".to_owned())].into_iter().collect());
    };
    let office = Some("relay list office (10.0.0.0/8) on listener mx");
    check(list, |s| s.source = "10.1.2.3".parse().unwrap(), office);
    check(list, |s| s.source = "::ffff:10.1.2.3".parse().unwrap(), office);
    check(list, |_| (), None);

    let except: fn(&mut World) = |w| {
        w.grants.sources =
            Sources::AllExcept([(net("10.0.0.0/8"), String::new())].into_iter().collect());
    };
    check(except, |s| s.source = "10.1.2.3".parse().unwrap(), None);
    check(except, |_| (), Some("relay list all except the list on listener mx"));

    let inside: fn(&mut World) =
        |w| w.grants.internal_addresses = vec!["10.0.0.1".parse().unwrap()];
    let rule = Some("internal address 10.0.0.1 on listener mx");
    check(inside, |s| s.local = "::ffff:10.0.0.1".parse().unwrap(), rule);
    check(inside, |_| (), None);

    let name: fn(&mut World) = |w| {
        w.grants.reverse_domains = DomainSet::from_patterns(["*.corp.example"]).unwrap();
    };
    let rule = Some("reverse name *.corp.example on listener mx");
    check(name, |s| s.reverse_name = ReverseName::Verified("a.CORP.example."), rule);
    check(name, |s| s.reverse_name = ReverseName::Verified("corp.example.evil.test"), None);
    check(name, |_| (), None);
}

#[test]
fn an_account_on_a_listener_that_grants_it_nothing_is_refused_and_proves_nothing() {
    let world = world();
    let from = SourceFacts { account: Some("alice"), ..world.source() };
    let decision = world.ask(from, to("user", "foreign.example"));
    assert_eq!(decision.refusal(), Some(&RELAYING_IS_PROHIBITED));
    assert_eq!(decision.evidence, None);
}

#[test]
fn a_name_that_cannot_be_looked_up_now_is_not_refused_for_good() {
    let mut world = world();
    world.grants.reverse_domains = DomainSet::from_patterns(["*.corp.example"]).unwrap();
    let from = SourceFacts { reverse_name: ReverseName::Unavailable, ..world.source() };
    let decision = world.ask(from, to("user", "foreign.example"));
    assert_eq!(decision.refusal().map(|r| r.code), Some(450));
    assert_eq!(decision.evidence, None);
}

#[test]
fn never_route_beats_every_grant_but_not_our_own_domains() {
    let mut world = world();
    world.grants = ListenerGrants {
        listener: "mx".to_owned(),
        authenticated: true,
        sources: Sources::everyone(),
        internal_addresses: vec!["198.51.100.1".parse().unwrap()],
        reverse_domains: DomainSet::from_patterns(["*.corp.example"]).unwrap(),
        users: Vec::new(),
    };
    let from = SourceFacts {
        account: Some("alice"),
        reverse_name: ReverseName::Verified("a.corp.example"),
        never_route: Some(net("203.0.113.0/24")),
        ..world.source()
    };
    for recipient in tricks() {
        let decision = world.ask(from, recipient);
        assert_eq!(decision.refusal(), Some(&RELAYING_IS_PROHIBITED), "{recipient:?}");
        assert_eq!(decision.rule, "never-route 203.0.113.0/24");
        assert_eq!(decision.evidence, Some(Reason::NeverRoute));
    }
    let inbound = world.ask(from, to("user", "ours.example"));
    assert_eq!(inbound.accepted(), Some(&Accepted::Inbound));
}

proptest! {
    /// Whatever the recipient, a stranger reaches the table's domains and nothing else.
    #[test]
    fn nothing_opens_by_default(
        local in "[a-z@%!.:\"＠]{0,20}",
        domain in "([a-z.]{0,8}(ours|partner|no)\\.example\\.{0,2}|[A-Za-z.@%!。-]{0,20})",
        quoted: bool,
    ) {
        let world = world();
        let recipient = RecipientView { local: &local, quoted, domain: DomainView::Name(&domain) };
        let decision = world.ask(world.source(), recipient);
        let in_table = world.domains.lookup(&domain).is_some();
        match decision.outcome {
            Outcome::Accept(accepted) => {
                prop_assert!(in_table && accepted != Accepted::Granted);
                prop_assert!(!local.contains(['@', '%', '!', '＠']));
            }
            Outcome::Refuse(refusal) => prop_assert_eq!(refusal.code, 550),
        }
    }
}
