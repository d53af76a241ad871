//! What a session allocates: nothing for a command that has nothing to keep, and for content as often
//! as the socket is read, not for each line.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use relay_core::smtp::session::{Answer, Effect, Session, SessionSettings, Verdict};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on as it is to the system's allocator, which keeps the contract; the
// counter is a plain number of the thread, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A session after EHLO, and what a driver keeps beside it.
struct Driven {
    session: Session,
    replies: Vec<u8>,
    content: usize,
    pieces: usize,
    now: Instant,
}

impl Driven {
    #[expect(
        clippy::disallowed_methods,
        reason = "there is no other way to an Instant to count from"
    )]
    fn new() -> Self {
        let now = Instant::now();
        let settings =
            SessionSettings { idle_commands_max: u32::MAX, ..SessionSettings::default() };
        let mut session = Session::new(Arc::new(settings), None, now);
        session.greet(now);
        let mut driven =
            Self { session, replies: Vec::with_capacity(4096), content: 0, pieces: 0, now };
        driven.say(b"EHLO client.test\r\n", "250");
        driven
    }

    /// Pushes bytes and does all that follows; the number of allocations meanwhile.
    fn say(&mut self, bytes: &[u8], code: &str) -> usize {
        self.replies.clear();
        let before = COUNT.get();
        self.session.push(bytes, self.now);
        while let Some(effect) = self.session.next_effect(self.now) {
            let answer = match effect {
                Effect::Reply(reply) => {
                    reply.encode(&mut self.replies);
                    continue;
                }
                Effect::CheckMail(_) => Answer::Mail(Verdict::Accept),
                Effect::CheckRecipient(_) => Answer::Recipient(Verdict::Accept),
                Effect::BeginMessage(_) => Answer::MessageOpened(Ok(())),
                Effect::EndMessage => Answer::Stored(Ok(String::new())),
                Effect::Body(content) => {
                    self.content += content.len();
                    self.pieces += 1;
                    continue;
                }
                _ => continue,
            };
            self.session.answer(answer, self.now);
        }
        let count = COUNT.get() - before;
        let replies = String::from_utf8_lossy(&self.replies);
        assert!(replies.contains(code), "{replies}");
        count
    }
}

#[test]
fn a_command_that_leaves_nothing_behind_allocates_nothing() {
    let mut driven = Driven::new();
    for line in ["NOOP\r\n", "RSET\r\n", "VRFY user\r\n", "HELP\r\n", "DATA\r\n", "EXPN x\r\n"] {
        driven.say(b"NOOP\r\n", "250");
        let count = driven.say(line.as_bytes(), "");
        assert_eq!(count, 0, "{line:?}");
    }
    // In a group, as PIPELINING has them.
    driven.say(b"NOOP\r\nRSET\r\nNOOP\r\n", "250");
    assert_eq!(driven.say(b"NOOP\r\nRSET\r\nNOOP\r\n", "250"), 0);
}

/// An envelope is kept, so its addresses are allocated: for the driver, and for the session.
#[test]
fn an_envelope_allocates_its_addresses() {
    let mut driven = Driven::new();
    driven.say(b"MAIL FROM:<sender@foreign.test> SIZE=1000\r\n", "250");
    driven.say(b"RCPT TO:<user@inside.test>\r\n", "250");
    driven.say(b"RSET\r\n", "250");
    let mail = driven.say(b"MAIL FROM:<sender@foreign.test> SIZE=1000\r\n", "250");
    let rcpt = driven.say(b"RCPT TO:<user@inside.test>\r\n", "250");
    assert!(mail <= ADDRESS && rcpt <= ADDRESS, "{mail} {rcpt}");
}

/// Allocations for an address: its parts, for the driver and for the session, and their list.
const ADDRESS: usize = 5;

#[test]
fn content_allocates_by_the_read_and_not_by_the_line() {
    let mut driven = Driven::new();
    driven.say(b"MAIL FROM:<sender@foreign.test>\r\n", "250");
    driven.say(b"RCPT TO:<user@inside.test>\r\n", "250");
    driven.say(b"DATA\r\n", "354");
    driven.say(b"Subject: x\r\n\r\n", "");
    // As much as one read takes, in 1,024 lines of 16 octets.
    let read = b"0123456789abcd\r\n".repeat(1024);
    driven.say(&read, "");
    let (before, pieces, mut most) = (driven.content, driven.pieces, 0);
    for _ in 0..64 {
        most = most.max(driven.say(&read, ""));
    }
    assert_eq!(driven.content - before, 64 * read.len());
    assert!(driven.pieces - pieces <= 2 * 64, "content goes on in pieces of a read, not of a line");
    assert!(most <= 3, "{most} allocations for a read");
}
