//! Every dialogue under `tests/dialogues`, against the pure session.

#[path = "../../tests/dialogues/rules.rs"]
mod rules;
#[path = "../../tests/dialogues/script.rs"]
mod script;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_core::smtp::{Answer, Effect, Session, TlsInfo};
use rules::Rules;
use script::{Script, Step};

/// A driver that answers from the script's rules.
struct Runner {
    script: Script,
    session: Session,
    now: Instant,
    /// Octets of one push.
    chunk: usize,
    replies: VecDeque<String>,
    rules: Rules,
    closed: bool,
}

#[expect(clippy::disallowed_methods, reason = "there is no other way to an Instant to count from")]
fn start() -> Instant {
    Instant::now()
}

fn tls() -> TlsInfo {
    TlsInfo { version: "TLSv1.3".to_owned(), cipher: "TLS_AES_256_GCM_SHA384".to_owned() }
}

impl Runner {
    fn new(script: Script, chunk: usize) -> Self {
        let now = start();
        let tls_already = script.directive("implicit-tls").next().map(|_| tls());
        let silent = script.directive("silent").next().is_some();
        let rules = Rules::new(&script.directives);
        let mut session = Session::new(Arc::new(rules.settings()), tls_already, now);
        if !silent {
            session.greet(now);
        }
        let mut runner =
            Self { script, session, now, chunk, replies: VecDeque::new(), rules, closed: false };
        runner.drain();
        runner
    }

    fn drain(&mut self) {
        while let Some(effect) = self.session.next_effect(self.now) {
            assert!(!self.closed, "after the close: {effect:?}");
            let starts_tls = effect == Effect::StartTls;
            match self.perform(effect) {
                Some(answer) => self.session.answer(answer, self.now),
                // Answered by the script's next step.
                None if starts_tls => return,
                None => {}
            }
        }
    }

    /// Does what the session asks for; returns the answer where one is due.
    fn perform(&mut self, effect: Effect) -> Option<Answer> {
        match &effect {
            Effect::Reply(reply) => {
                let text = reply.to_string();
                self.replies.extend(text.split_terminator("\r\n").map(str::to_owned));
            }
            Effect::Close => self.closed = true,
            _ => {}
        }
        self.rules.answer(effect)
    }

    fn step(&mut self, step: Step) {
        let speaks = !matches!(step, Step::Expect(_) | Step::Event(_));
        if let (true, Some(reply)) = (speaks, self.replies.front()) {
            panic!("{step:?}, but a reply came that nobody expected: {reply}");
        }
        match step {
            Step::Greet => self.session.greet(self.now),
            Step::Send(bytes) => {
                for part in bytes.chunks(self.chunk) {
                    self.session.push(part, self.now);
                    self.drain();
                }
            }
            Step::Expect(expected) => {
                let reply = self.replies.pop_front().unwrap_or_else(|| "nothing".to_owned());
                let fits = match expected.strip_suffix("...") {
                    Some(start) => reply.starts_with(start),
                    None => reply == expected,
                };
                assert!(fits, "expected: {expected}\n     got: {reply}");
            }
            Step::Closed => assert!(self.closed, "the session is still open"),
            Step::Tls => self.session.answer(Answer::TlsStarted(tls()), self.now),
            Step::Eof => self.session.peer_closed(),
            Step::Wait(seconds) => {
                self.now += Duration::from_secs(seconds);
                if self.now >= self.session.deadline() {
                    self.session.timed_out(self.now);
                }
            }
            Step::ShutDown => self.session.shut_down(),
            Step::Stored(content) => {
                let stored = self.rules.take_stored().expect("nothing was stored");
                assert_eq!(stored.escape_ascii().to_string(), content.escape_ascii().to_string());
            }
            Step::NothingStored => assert_eq!(self.rules.take_stored(), None),
            Step::Event(name) => {
                assert!(self.rules.take_event(&name), "no {name}, but {:?}", self.rules.events());
            }
        }
        self.drain();
    }

    fn run(mut self) {
        while let Some((number, step)) = self.script.steps.pop_front() {
            let what = format!("{step:?}");
            let step = std::panic::AssertUnwindSafe(|| self.step(step));
            if let Err(panic) = std::panic::catch_unwind(step) {
                eprintln!("    at line {number}: {}", &what[..what.len().min(200)]);
                std::panic::resume_unwind(panic);
            }
        }
        assert!(self.replies.is_empty(), "replies nobody expected: {:?}", self.replies);
        assert_eq!(self.rules.take_stored(), None, "stored, but nobody looked");
    }
}

#[test]
fn every_dialogue_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/dialogues");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "smtp"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 25, "only {} dialogues in {}", paths.len(), folder.display());
    let mut failed = Vec::new();
    for path in paths {
        let whole_only = Script::read(&path).directive("whole").next().is_some();
        let chunks: &[usize] = if whole_only { &[usize::MAX] } else { &[usize::MAX, 1, 3] };
        for &chunk in chunks {
            let script = Script::read(&path);
            if std::panic::catch_unwind(|| Runner::new(script, chunk).run()).is_err() {
                failed.push(format!("{} in chunks of {chunk}", path.display()));
            }
        }
    }
    assert!(failed.is_empty(), "failed:\n{}", failed.join("\n"));
}
