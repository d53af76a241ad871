use super::*;
use proptest::prelude::*;

fn mailbox(text: &str) -> Mailbox {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn plain_and_quoted_spellings_are_one_mailbox() {
    assert_eq!(mailbox("ann@Example.ORG"), mailbox("\"ann\"@example.org"));
    assert_eq!(mailbox("\"a b\\\"c\"@x.example").local(), "a b\"c");
    assert_eq!(mailbox("\"a b\"@x.example").to_string(), "\"a b\"@x.example");
    assert_eq!(mailbox("\"\"@x.example").to_string(), "\"\"@x.example");
    assert_eq!(mailbox("\"a\\\\b\"@x").to_string(), "\"a\\\\b\"@x");
}

#[test]
fn what_the_grammar_lacks_is_refused() {
    for bad in [
        "",
        "@",
        "a",
        "a@",
        "@b",
        ".a@b",
        "a.@b",
        "a..b@c",
        "a b@c",
        "a@b..",
        "a@.",
        "a@.b",
        "a@-b",
        "a@b-",
        "a@b c",
        "a@[1.2.3]",
        "a@[1.2.3.4",
        "a@[IPv6:1.2.3.4]",
        "a@[::1]",
        "\"a@b",
        "\"a\"b@c",
        "\"\u{7f}\"@b",
        "\"a\nb\"@c",
        "a(b)@c",
        "a\\b@c",
    ] {
        assert!(bad.parse::<Mailbox>().is_err(), "{bad:?}");
    }
    // DNS has such names, and hosts are called by them.
    assert_eq!(mailbox("a@mail_1.Example").to_string(), "a@mail_1.example");
    // The root's label names nothing else: one dot at the end is the same domain.
    assert_eq!("a@B.Example.".parse::<Mailbox>(), "a@b.example".parse());
    assert_eq!("a@[x400:foo]".parse::<Mailbox>(), Err(AddressError::UnknownLiteral));
}

/// RFC 6531 section 3.3: local parts stay as they are, domains become what DNS knows.
#[test]
fn beyond_ascii() {
    let unicode = mailbox("jürgen@MÜNCHEN.example");
    assert_eq!(unicode.to_string(), "jürgen@xn--mnchen-3ya.example");
    assert_eq!(unicode, mailbox("jürgen@xn--mnchen-3ya.example"));
    assert!(!unicode.is_ascii() && mailbox("a@münchen.example").is_ascii());
    assert_eq!(mailbox("\"ü b\"@x").to_string(), "\"ü b\"@x");
    assert_eq!(mailbox("a@例え。テスト").domain().name(), Some("xn--r8jz45g.xn--zckzah"));
    for bad in ["a\u{85}@b", "\"\u{9f}\"@b", "a@-ü", "a@ü..b", "a@ü/b", "a@\u{ad}", "\"\\ü\"@b"]
    {
        assert!(bad.parse::<Mailbox>().is_err(), "{bad:?}");
    }
    let long = format!("a@{}", "ü".repeat(LABEL_MAX));
    assert!(long.parse::<Mailbox>().is_err());
    assert_eq!(ForwardPath::parse("<ü@b> X").unwrap().1, " X");
}

/// RFC 5321 section 4.5.3.1.
#[test]
fn lengths_end_exactly_at_their_limits() {
    let local = |length| format!("{}@b", "a".repeat(length)).parse::<Mailbox>();
    assert!(local(LOCAL_PART_MAX).is_ok());
    assert_eq!(local(LOCAL_PART_MAX + 1), Err(AddressError::TooLong));
    let quoted = |length| format!("\"{}\"@b", " ".repeat(length)).parse::<Mailbox>();
    assert!(quoted(LOCAL_PART_MAX).is_ok());
    assert_eq!(quoted(LOCAL_PART_MAX + 1), Err(AddressError::TooLong));
    assert!("a".repeat(LABEL_MAX).parse::<Domain>().is_ok());
    assert_eq!("a".repeat(LABEL_MAX + 1).parse::<Domain>(), Err(AddressError::TooLong));
    let name = format!("{}a", "a.".repeat(127));
    assert_eq!(name.len(), DOMAIN_MAX);
    assert!(name.parse::<Domain>().is_ok());
    assert_eq!(format!("{name}a.").parse::<Domain>(), Err(AddressError::TooLong));
}

#[test]
fn paths_leave_the_parameters_behind_them() {
    let (path, rest) = ReversePath::parse("<a@b> SIZE=1").unwrap();
    assert_eq!((path.to_string().as_str(), rest), ("a@b", " SIZE=1"));
    assert_eq!(ReversePath::parse("<>").unwrap(), (ReversePath::Null, ""));
    let (path, rest) = ForwardPath::parse("<\"x> y\"@b>z").unwrap();
    assert_eq!((path.to_string().as_str(), rest), ("\"x> y\"@b", "z"));
    assert_eq!(ForwardPath::parse("<PostMaster> X").unwrap(), (ForwardPath::Postmaster, " X"));
    assert_eq!(ForwardPath::parse("<>"), Err(AddressError::Syntax));
    assert_eq!(ForwardPath::parse("a@b"), Err(AddressError::Syntax));
    assert_eq!(ReversePath::parse("<a@b"), Err(AddressError::Syntax));
}

#[test]
fn source_routes_and_tricks_stay_in_sight() {
    let (path, _) = ForwardPath::parse("<@one.example,@[192.0.2.1]:u@x.example>").unwrap();
    assert_eq!(path.route().len(), 2);
    assert_eq!(path.to_string(), "u@x.example");
    assert!(ForwardPath::parse("<@one.example:u>").is_err());
    assert!(ForwardPath::parse("<@one.example,:u@x>").is_err());
    let long = format!("<{}@z:u@x>", "@a,".repeat(ROUTE_MAX));
    assert_eq!(ForwardPath::parse(&long), Err(AddressError::TooLong));
    assert_eq!(mailbox("u%far.example@x").routing_trick(), Some(RoutingTrick::Percent));
    assert_eq!(mailbox("far.example!u@x").routing_trick(), Some(RoutingTrick::Bang));
    assert_eq!(mailbox("\"u@far.example\"@x").routing_trick(), Some(RoutingTrick::NestedAt));
    assert_eq!(mailbox("u@x").routing_trick(), None);
    assert!(mailbox("POSTMASTER@x").is_postmaster());
}

proptest! {
    #[test]
    fn printing_and_parsing_agree(
        local in "[ -~]{0,64}|[a-z .é日]{0,30}",
        domain in prop_oneof![
            "[a-z0-9]{1,9}(\\.[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?){0,4}".prop_map(Domain::Name),
            any::<[u8; 4]>().prop_map(|octets| Domain::Literal(octets.into())),
            any::<[u8; 16]>().prop_map(|octets| Domain::Literal(octets.into())),
        ],
    ) {
        let mailbox = Mailbox { local, domain };
        let text = mailbox.to_string();
        prop_assert_eq!(text.parse::<Mailbox>(), Ok(mailbox.clone()), "{}", text);
        let bracketed = format!("<{text}> X=1");
        let (path, rest) = ForwardPath::parse(&bracketed).unwrap();
        prop_assert_eq!((path.mailbox(), rest), (Some(&mailbox), " X=1"));
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,80}", ascii in "[<>@\"\\\\aü.,:\\[\\] ]{0,24}") {
        for text in [text, ascii] {
            let _ = (text.parse::<Mailbox>(), text.parse::<Domain>());
            let _ = (ForwardPath::parse(&text), ReversePath::parse(&text));
        }
    }
}
