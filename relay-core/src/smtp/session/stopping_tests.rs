//! What a session does when the service stops.

use super::*;

#[test]
fn turned_away_or_shut_down_instead_of_greeted() {
    let now = start();
    for (shut_down, code) in [(false, 554), (true, 421)] {
        let mut session = Session::new(Arc::new(settings()), None, now);
        if shut_down {
            session.shut_down();
        } else {
            session.turn_away(Reply::new(554, (5, 7, 1), "No service for you"));
        }
        session.greet(now);
        let found = all(&mut session, "EHLO x\r\n", now);
        assert_eq!((codes(&found), found.last()), (vec![code], Some(&Effect::Close)));
    }
}

#[test]
fn an_idle_session_is_shut_down_at_once() {
    let (mut session, now) = session(settings());
    all(&mut session, TO_DATA.strip_suffix("DATA\r\n").unwrap(), now);
    session.shut_down();
    assert_eq!(codes(&all(&mut session, "", now)), [421]);
}

/// In the middle of DATA, of a chunk, and between two.
#[test]
fn a_message_that_does_not_end_is_cut_off_by_a_stop_with_421() {
    let envelope = TO_DATA.strip_suffix("DATA\r\n").unwrap();
    for unfinished in ["DATA\r\nhalf a", "BDAT 9\r\nhalf a", "BDAT 3\r\none"] {
        let (mut session, now) = session(settings());
        all(&mut session, &format!("{envelope}{unfinished}"), now);
        session.shut_down();
        assert_eq!(codes(&all(&mut session, "", now)), [0; 0], "{unfinished}");
        session.timed_out(now);
        let found = all(&mut session, "", now);
        assert_eq!(codes(&found), [421], "{unfinished}");
        assert!(found.iter().any(|it| matches!(it, Effect::AbortMessage(_))), "{found:?}");
        assert!(!found.contains(&Effect::Event(SessionEvent::TimedOut)), "{found:?}");
    }
}
