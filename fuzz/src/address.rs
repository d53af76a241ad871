//! What is read as an address is printed so that it is read as the same again.

use relay_core::smtp::address::{
    DOMAIN_MAX, Domain, ForwardPath, LABEL_MAX, LOCAL_PART_MAX, Mailbox, ROUTE_MAX, ReversePath,
};

/// The whole input is one text; octets that are no UTF-8 are replaced.
pub fn check(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    if let Ok(domain) = text.parse::<Domain>() {
        check_domain(&domain);
    }
    if let Ok(mailbox) = text.parse::<Mailbox>() {
        check_mailbox(&mailbox);
    }
    if let Ok((path, rest)) = ForwardPath::parse(text) {
        assert!(text.ends_with(rest) && rest.len() < text.len());
        assert!(path.route().len() <= ROUTE_MAX);
        path.route().iter().for_each(check_domain);
        path.mailbox().into_iter().for_each(check_mailbox);
        let printed = format!("<{path}>");
        let (again, rest) = ForwardPath::parse(&printed).expect("what was printed is read");
        assert_eq!((again.mailbox(), rest), (path.mailbox(), ""), "{printed}");
    }
    if let Ok((path, rest)) = ReversePath::parse(text) {
        assert!(text.ends_with(rest) && rest.len() < text.len());
        path.mailbox().into_iter().for_each(check_mailbox);
        let printed = format!("<{path}>");
        let (again, rest) = ReversePath::parse(&printed).expect("what was printed is read");
        assert_eq!((again.mailbox(), rest), (path.mailbox(), ""), "{printed}");
    }
}

fn check_mailbox(mailbox: &Mailbox) {
    let local = mailbox.local();
    assert!(local.len() <= LOCAL_PART_MAX, "{local:?}");
    assert!(!local.contains(char::is_control), "{local:?}");
    check_domain(mailbox.domain());
    let printed = mailbox.to_string();
    assert_eq!(printed.parse::<Mailbox>().as_ref(), Ok(mailbox), "{printed}");
    assert_eq!(mailbox.is_ascii(), printed.is_ascii(), "{printed}");
}

fn check_domain(domain: &Domain) {
    let printed = domain.to_string();
    assert_eq!(printed.parse::<Domain>().as_ref(), Ok(domain), "{printed}");
    if let Some(name) = domain.name() {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        assert!(name.bytes().all(fits), "{name:?}");
        assert!((1..=DOMAIN_MAX).contains(&name.len()), "{name:?}");
        assert!(name.split('.').all(|label| (1..=LABEL_MAX).contains(&label.len())), "{name:?}");
    }
}
