//! What may not be taken off the allow list, as long as something is denied.

use super::*;
use crate::edge::sshd::SshSession;

fn lift(bench: &mut Bench, prefix: &str) -> Result<Changed, Problem> {
    let prefixes = vec![prefix.into()];
    bench.edge.remove(List::Allow, &RemoveRequest { prefixes, ..RemoveRequest::default() })
}

/// The protected gateway is allowed, and then denied with all others.
fn gateway_allowed(scope: Scope) -> Bench {
    let mut bench = Bench::new();
    bench.add(List::Allow, "198.51.100.1", Scope::ALL, None);
    bench.add(List::Allow, "192.0.2.7", Scope::ALL, None);
    bench.add(List::Deny, "0.0.0.0/0", scope, None);
    bench
}

#[test]
fn what_keeps_a_protected_address_out_of_a_denial_is_not_lifted() {
    let why = "198.51.100.1/32 keeps 198.51.100.1, a gateway, out of the denial of 0.0.0.0/0; \
               nothing was changed";
    let mut bench = gateway_allowed(Scope::MX);
    let prefixes = vec!["192.0.2.7".into(), "198.51.100.1".into()];
    let request = RemoveRequest { prefixes, ..RemoveRequest::default() };
    let problem = bench.edge.remove(List::Allow, &request).unwrap_err();
    assert_eq!((problem.code, problem.message.as_str()), (Code::Refused, why));
    let problem = bench.edge.flush(List::Allow, &FlushRequest::default()).unwrap_err();
    assert_eq!(problem.message, why);
    assert_eq!(bench.rows(List::Allow).len(), 2);
    assert!(!bench.denied("198.51.100.1", 25) && !bench.denied("192.0.2.7", 25));
    // Nor is it narrowed to what is not denied; but what is not protected may go.
    let narrower = super::request(&["198.51.100.1"], Scope::SUBMISSION, None);
    assert_eq!(bench.edge.add(List::Allow, &narrower).unwrap_err().message, why);
    bench.edge.add(List::Allow, &super::request(&["198.51.100.1"], Scope::MX, None)).unwrap();
    lift(&mut bench, "192.0.2.7").unwrap();
    assert!(bench.denied("192.0.2.7", 25));

    let mut forced = RemoveRequest { force: true, ..request };
    forced.prefixes = vec!["198.51.100.1".into()];
    bench.edge.remove(List::Allow, &forced).unwrap();
    assert!(bench.denied("198.51.100.1", 25));
}

#[test]
fn it_is_lifted_once_nothing_is_denied_or_another_entry_keeps_it_open() {
    let mut bench = gateway_allowed(Scope::MX);
    bench.add(List::Allow, "198.51.100.0/24", Scope::SUBMISSION, None);
    assert!(lift(&mut bench, "198.51.100.1").is_err(), "it keeps other ports open");
    bench.add(List::Allow, "198.51.100.0/24", Scope::SMTP, None);
    lift(&mut bench, "198.51.100.1").unwrap();
    assert!(lift(&mut bench, "198.51.100.0/24").is_err());
    bench.remove(List::Deny, "0.0.0.0/0");
    let observed = AddRequest { observe: true, ..request(&["0.0.0.0/0"], Scope::ALL, None) };
    bench.edge.add(List::Deny, &observed).unwrap();
    lift(&mut bench, "198.51.100.0/24").unwrap();
}

#[test]
fn a_file_that_replaces_takes_no_protected_address_away_and_the_configuration_only_warns() {
    let mut bench = Bench::new();
    let query = ImportQuery {
        name: "friends".into(),
        scope: Scope::ALL,
        replace: true,
        observe: false,
        force: false,
        confirm_within_s: None,
        session: None,
    };
    let import = |bench: &mut Bench, text: &str| {
        let lines = lines::parse("friends", text.as_bytes()).unwrap();
        bench.edge.import(List::Allow, &query, lines)
    };
    import(&mut bench, "198.51.100.1\n192.0.2.7\n").unwrap();
    bench.add(List::Deny, "198.51.0.0/16", Scope::MX, None);
    let problem = import(&mut bench, "192.0.2.7\n").unwrap_err();
    assert!(problem.message.contains("keeps 198.51.100.1, a gateway"), "{problem}");
    assert_eq!(bench.rows(List::Allow).len(), 2);
    import(&mut bench, "198.51.100.0/24\n").unwrap();

    let line = lines::Line::new(net("198.51.100.1/32"), Scope::ALL);
    bench.edge.replace(List::Allow, "config", vec![line]).unwrap();
    lift(&mut bench, "198.51.100.0/24").unwrap();
    bench.edge.replace(List::Allow, "config", Vec::new()).unwrap();
    assert!(bench.denied("198.51.100.1", 25));
}

#[test]
fn whoever_is_logged_in_is_spared_where_the_denial_reaches_the_port() {
    let session = SshSession { peer: "192.0.2.7".parse().unwrap(), port: 22, logged_in: true };
    for (scope, refused) in [(Scope::SMTP, false), (Scope::TCP, true)] {
        let mut bench = gateway_allowed(scope);
        bench.add(List::Allow, "192.0.2.8", Scope::ALL, None);
        bench.edge.sessions = Box::new(move || vec![session]);
        match lift(&mut bench, "192.0.2.7") {
            Err(problem) => {
                let why = "192.0.2.7, from which somebody is logged in over SSH";
                assert!(refused && problem.message.contains(why), "{problem}");
            }
            Ok(changed) => assert!(!refused, "{changed:?}"),
        }
        let own = RemoveRequest {
            prefixes: vec!["192.0.2.8".into()],
            session: Some("192.0.2.8".parse().unwrap()),
            ..RemoveRequest::default()
        };
        match bench.edge.remove(List::Allow, &own) {
            Err(problem) => {
                let why = "192.0.2.8, where an administrator is logged in from";
                assert!(refused && problem.message.contains(why), "{problem}");
            }
            Ok(changed) => assert!(!refused, "{changed:?}"),
        }
    }
}

#[test]
fn an_allowance_that_ends_before_the_denial_keeps_nothing_out_of_it() {
    let mut bench = Bench::new();
    bench.add(List::Allow, "198.51.100.1", Scope::ALL, Some(600));
    let world = |ttl_s| request(&["0.0.0.0/0"], Scope::MX, ttl_s);
    for ttl_s in [None, Some(601)] {
        let problem = bench.edge.add(List::Deny, &world(ttl_s)).unwrap_err();
        assert!(problem.message.contains("holds 198.51.100.1, a gateway"), "{problem}");
    }
    bench.edge.add(List::Deny, &world(Some(600))).unwrap();
    bench.pass(Duration::from_secs(601));
    bench.edge.tick();
    assert!(!bench.denied("198.51.100.1", 25));
    // What is not protected is denied once it is no longer allowed.
    bench.add(List::Allow, "192.0.2.7", Scope::ALL, Some(600));
    bench.edge.add(List::Deny, &request(&["192.0.2.7"], Scope::MX, None)).unwrap();
    assert!(!bench.denied("192.0.2.7", 25));
    bench.pass(Duration::from_secs(601));
    bench.edge.tick();
    assert!(bench.denied("192.0.2.7", 25));
}

#[test]
fn an_allowance_is_not_shortened_to_less_than_the_denial_that_it_keeps_off() {
    let mut bench = gateway_allowed(Scope::MX);
    let shorter = request(&["198.51.100.1"], Scope::ALL, Some(600));
    let problem = bench.edge.add(List::Allow, &shorter).unwrap_err();
    assert!(problem.message.contains("keeps 198.51.100.1, a gateway"), "{problem}");
    bench.add(List::Allow, "198.51.100.0/24", Scope::ALL, Some(600));
    assert!(lift(&mut bench, "198.51.100.1").is_err(), "what is left ends too soon");
    bench.add(List::Deny, "0.0.0.0/0", Scope::MX, Some(600));
    bench.edge.add(List::Allow, &shorter).unwrap();
    lift(&mut bench, "198.51.100.1").unwrap();
    assert!(!bench.denied("198.51.100.1", 25));
}
