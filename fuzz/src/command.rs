//! Any line is a command or an error with a reply, and what was understood can be said again.

use relay_core::smtp::{
    address::{ForwardPath, ReversePath},
    command::{Command, Dialect, MailCommand, RcptCommand, parse},
    options::OriginalRecipient,
    xtext,
};

/// First octet: what the client said before. The rest: one line.
pub fn check(data: &[u8]) {
    let [mode, line @ ..] = data else { return };
    let dialect = Dialect { extended: mode & 1 != 0, utf8: mode & 2 != 0 };
    match parse(line, dialect) {
        Ok(command) => {
            let text = std::str::from_utf8(line).expect("only UTF-8 is understood");
            assert!(!text.contains(|c: char| c.is_ascii_control() && c != '\t'), "{text:?}");
            understood(&command, dialect);
            let verb = text.split([' ', '\t']).next().unwrap_or_default();
            let shouted = verb.to_ascii_uppercase() + &text[verb.len()..];
            assert_eq!(parse(shouted.as_bytes(), dialect).as_ref(), Ok(&command), "{text:?}");
        }
        Err(error) => {
            let reply = error.reply();
            assert!((500..=555).contains(&reply.code()), "{error:?}");
            assert!(reply.enhanced().is_some_and(|(class, ..)| class == 5), "{error:?}");
        }
    }
}

fn understood(command: &Command<'_>, dialect: Dialect) {
    match command {
        Command::Ehlo(name) | Command::Helo(name) | Command::Lhlo(name) => {
            assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        Command::Auth { mechanism, initial } => {
            assert!(!mechanism.contains(' ') && initial.is_none_or(|word| !word.contains(' ')));
        }
        Command::Mail(mail) => mail_can_be_said_again(mail, dialect),
        Command::Rcpt(rcpt) => rcpt_can_be_said_again(rcpt, dialect),
        _ => {}
    }
}

fn mail_can_be_said_again(mail: &MailCommand, dialect: Dialect) {
    let MailCommand { reverse_path, size, body, auth, options } = mail;
    if !dialect.extended {
        let plain = size.is_none() && auth.is_none() && *options == Default::default();
        assert!(plain && *body == Default::default(), "parameters without EHLO: {mail:?}");
    }
    let ascii = reverse_path.mailbox().is_none_or(|mailbox| mailbox.is_ascii());
    assert!(ascii || options.utf8, "UTF-8 without SMTPUTF8: {mail:?}");
    let text = format!("<{reverse_path}>");
    let (again, rest) = ReversePath::parse(&text).expect("what was printed is read");
    assert_eq!((again.mailbox(), rest), (reverse_path.mailbox(), ""), "{text}");
    if let Some(envid) = &options.envid {
        assert!((1..=100).contains(&envid.len()) && envid.is_ascii(), "{envid:?}");
        assert_eq!(xtext::decode(&xtext::encode(envid)).as_ref(), Some(envid));
    }
}

fn rcpt_can_be_said_again(rcpt: &RcptCommand, dialect: Dialect) {
    let RcptCommand { forward_path, options } = rcpt;
    assert!(dialect.extended || *options == Default::default(), "no EHLO: {rcpt:?}");
    let ascii = forward_path.mailbox().is_none_or(|mailbox| mailbox.is_ascii());
    assert!(ascii || dialect.utf8, "UTF-8 without SMTPUTF8: {rcpt:?}");
    let text = format!("<{forward_path}>");
    let (again, rest) = ForwardPath::parse(&text).expect("what was printed is read");
    assert_eq!((again.mailbox(), rest), (forward_path.mailbox(), ""), "{text}");
    if let Some(orcpt) = &options.orcpt {
        let text = orcpt.to_string();
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
        // Its encoding may be longer than what may be said.
        if let Some(again) = OriginalRecipient::parse(&text) {
            assert_eq!(&again, orcpt, "{text}");
        }
    }
}
