//! The order at the start, and the look after the interfaces.

use super::*;
use crate::edge::{daemon, links};

/// A filter whose interfaces a test sets.
#[derive(Clone, Default)]
struct Wired(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    memory: MemoryFilter,
    /// Entries that were in force when the program was attached.
    at_activation: Option<usize>,
    refuses: bool,
    kept: Kept,
    looks: u32,
    attachments: Vec<Attachment>,
}

fn attachment(state: State) -> Attachment {
    let guarded = matches!(state, State::Up | State::Down);
    Attachment {
        interface: Some("eth0".into()),
        called: None,
        mode: if guarded { Mode::Native } else { Mode::Detached },
        state,
        program_id: guarded.then_some(7),
    }
}

fn refusal() -> FilterError {
    FilterError::NotAttached { source: "eth0 runs another program".into() }
}

impl Wired {
    fn with<T>(&self, f: impl FnOnce(&mut Wires) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }
}

impl Filter for Wired {
    fn put(&mut self, list: List, prefix: IpNet, entry: Entry) -> Result<(), FilterError> {
        self.with(|wires| wires.memory.put(list, prefix, entry))
    }
    fn remove(&mut self, list: List, prefix: IpNet) -> Result<bool, FilterError> {
        self.with(|wires| wires.memory.remove(list, prefix))
    }
    fn get(&self, list: List, prefix: IpNet) -> Result<Option<Entry>, FilterError> {
        self.with(|wires| wires.memory.get(list, prefix))
    }
    fn entries(&self, list: List) -> Result<Vec<(IpNet, Entry)>, FilterError> {
        self.with(|wires| wires.memory.entries(list))
    }
    fn capacity(&self) -> MapSizes {
        self.with(|wires| wires.memory.capacity())
    }
    fn set_guarded(&mut self, scope: Scope) -> Result<(), FilterError> {
        self.with(|wires| wires.memory.set_guarded(scope))
    }
    fn guarded(&self) -> Result<Scope, FilterError> {
        self.with(|wires| wires.memory.guarded())
    }
    fn set_modes(&mut self, modes: &Modes) -> Result<(), FilterError> {
        self.with(|wires| wires.memory.set_modes(modes))
    }
    fn feed_clear(&mut self, at_most: usize) -> Result<bool, FilterError> {
        self.with(|wires| wires.memory.feed_clear(at_most))
    }
    fn feed_fill(&mut self, list: List, entries: &[(IpNet, Entry)]) -> Result<(), FilterError> {
        self.with(|wires| wires.memory.feed_fill(list, entries))
    }
    fn feed_count(&self) -> Result<u64, FilterError> {
        self.with(|wires| wires.memory.feed_count())
    }
    fn feed_flip(&mut self, guarded: Scope) -> Result<(), FilterError> {
        self.with(|wires| wires.memory.feed_flip(guarded))
    }
    fn feeds(&self, each: &mut dyn FnMut(List, IpNet, Entry)) -> Result<(), FilterError> {
        self.with(|wires| wires.memory.feeds(each))
    }
    fn retouch(
        &mut self,
        prefixes: &mut dyn Iterator<Item = (List, IpNet)>,
    ) -> Result<(), FilterError> {
        self.with(|wires| wires.memory.retouch(prefixes))
    }
    fn verdict(&self, source: IpAddr, class: Scope, now_s: u32) -> Result<Verdict, FilterError> {
        self.with(|wires| wires.memory.verdict(source, class, now_s))
    }
    fn judge(&mut self, source: IpAddr, port: u16, now_s: u32) -> Result<Verdict, FilterError> {
        self.with(|wires| wires.memory.judge(source, port, now_s))
    }
    fn totals(&self) -> Result<Totals, FilterError> {
        self.with(|wires| wires.memory.totals())
    }
    fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError> {
        self.with(|wires| wires.memory.rule_hits(rule))
    }
    fn set_totals(&mut self, totals: &Totals) -> Result<(), FilterError> {
        self.with(|wires| wires.memory.set_totals(totals))
    }
    fn set_rule(&mut self, rule: u32, hits: RuleHits) -> Result<(), FilterError> {
        self.with(|wires| wires.memory.set_rule(rule, hits))
    }
    fn activate(&mut self) -> Result<(), FilterError> {
        self.with(|wires| {
            wires.at_activation = Some(wires.memory.entries(List::Deny)?.len());
            if wires.refuses { Err(refusal()) } else { Ok(()) }
        })
    }
    fn keep_attached(&mut self) -> Kept {
        self.with(|wires| {
            wires.looks += 1;
            std::mem::take(&mut wires.kept)
        })
    }
    fn take_off(&mut self) -> Result<(), FilterError> {
        self.with(|wires| wires.attachments = vec![attachment(State::Lost)]);
        Ok(())
    }
    fn attachments(&self) -> Vec<Attachment> {
        self.with(|wires| wires.attachments.clone())
    }
}

fn open_on(dir: &Path, filter: &Wired, now: &Arc<Mutex<Now>>) -> Result<Edge<Wired>, OpenError> {
    let clock = now.clone();
    let rows = vec![(List::Deny, vec![lines::Line::new(net("203.0.113.0/24"), Scope::SMTP)])];
    let settings = EdgeSettings { rows, ..EdgeSettings::new(dir.join("lists.db")) };
    let clock = Box::new(move || *clock.lock().unwrap());
    Edge::open(settings, filter.clone(), clock, Box::new(protected))
}

#[test]
fn lists_and_configured_rows_are_written_before_the_program_is_attached() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(START)));
    let mut edge = open_on(dir.path(), &Wired::default(), &now).unwrap();
    edge.add(List::Deny, &request(&["192.0.2.0/24"], Scope::MX, None)).unwrap();
    drop(edge);
    // As after a reboot: empty maps, and a list on disk.
    let filter = Wired::default();
    open_on(dir.path(), &filter, &now).unwrap();
    assert_eq!(filter.with(|wires| wires.at_activation), Some(2));
}

#[test]
fn a_filter_that_cannot_be_attached_is_no_start() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(START)));
    let filter = Wired::default();
    filter.with(|wires| wires.refuses = true);
    let error = open_on(dir.path(), &filter, &now).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "eth0 runs another program");
}

#[test]
fn what_a_look_finds_is_counted_and_a_failure_shows_until_it_is_over() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(START)));
    let filter = Wired::default();
    filter.with(|wires| wires.attachments = vec![attachment(State::Up)]);
    let mut edge = open_on(dir.path(), &filter, &now).unwrap();
    let mut look = |state, kept| {
        filter.with(|wires| (wires.attachments, wires.kept) = (vec![attachment(state)], kept));
        now.lock().unwrap().boot_ms += 2_000;
        edge.tick();
        edge.status().unwrap()
    };
    let status = look(State::Lost, Kept { failures: vec![refusal()], ..Kept::default() });
    assert_eq!((status.mode.as_str(), status.interfaces[0].state.as_str()), ("detached", "lost"));
    assert!(status.health.last_failure.unwrap().contains("another program"));
    let status = look(State::Up, Kept { again: vec!["eth0".into()], ..Kept::default() });
    assert_eq!((status.mode.as_str(), status.health.reattached), ("native", 1));
    let status = look(State::Up, Kept { pins: Ok(3), ..Kept::default() });
    assert_eq!(status.health.pins_made_anew, 3);
    let status = look(State::Up, Kept { pins: Err(refusal()), ..Kept::default() });
    assert!(status.health.last_failure.unwrap().contains("another program"));
    let status = look(State::Missing, Kept::default());
    assert!(!status.interfaces[0].is_guarded());
}

#[test]
fn news_of_a_link_call_for_one_look_at_once() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(START)));
    let filter = Wired::default();
    let mut edge = open_on(dir.path(), &filter, &now).unwrap();
    edge.tick();
    let looks = || filter.with(|wires| wires.looks);
    let before = looks();
    edge.tick();
    assert_eq!(looks(), before, "not yet due");
    for _ in 0..1_000 {
        edge.link_news().tell();
    }
    edge.tick();
    edge.tick();
    assert_eq!(looks(), before + 1);
    assert_eq!(edge.status().unwrap().health.links_told, 1);
    // And without news, as before.
    now.lock().unwrap().boot_ms += 2_000;
    edge.tick();
    assert_eq!(looks(), before + 2);
}

#[tokio::test]
async fn links_that_cannot_be_heard_show_in_the_status() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(START)));
    let edge = open_on(dir.path(), &Wired::default(), &now).unwrap();
    assert_eq!(edge.status().unwrap().links_unheard, None);
    let owner = daemon::start(edge).unwrap();
    let refused = Err(std::io::Error::from_raw_os_error(libc::EMFILE));
    links::watch(refused, owner.handle()).await;
    let why = owner.handle().status().await.unwrap().links_unheard.unwrap();
    assert!(why.contains("Too many open files"), "{why}");
}

#[test]
fn a_stop_tells_what_was_there_and_takes_it_off_only_when_asked() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::new(Mutex::new(START)));
    let filter = Wired::default();
    filter.with(|wires| wires.attachments = vec![attachment(State::Up)]);
    let mut edge = open_on(dir.path(), &filter, &now).unwrap();
    for detach in [false, true] {
        let stopping = edge.stopping(StopRequest { detach }).unwrap();
        assert_eq!((stopping.interfaces[0].is_guarded(), stopping.entries["deny"]), (true, 1));
        assert_eq!(filter.attachments()[0].program_id.is_none(), detach);
    }
}
