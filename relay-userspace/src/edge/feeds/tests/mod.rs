//! Feeds with a filter in memory and clocks that the test sets.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_common::entry::{List, Scope};
use relay_common::verdict::Verdict;
use tokio::sync::oneshot;

use super::store::Incoming;
use crate::control::api::*;
use crate::edge::clock::Now;
use crate::edge::filter::Filter;
use crate::edge::state::{Edge, EdgeSettings};
use crate::edge::tests::{Probe, ban_request, protected, request};

mod keeping;
mod leases;
mod network;
mod publishing;
mod refusing;

const START: Now = Now { wall_ms: 1_800_000_000_000, boot_ms: 50_000_000 };

struct Bench {
    edge: Edge<Probe>,
    probe: Probe,
    now: Arc<Mutex<Now>>,
    config: String,
    dir: tempfile::TempDir,
}

fn open(dir: &Path, config: &str, probe: &Probe, now: &Arc<Mutex<Now>>) -> Edge<Probe> {
    let config = config.replace("{dir}", &dir.display().to_string());
    let config = crate::config::parse(Path::new("postern.toml"), &config).unwrap();
    let settings = EdgeSettings { feeds: config.feeds, ..EdgeSettings::new(dir.join("lists.db")) };
    let clock = now.clone();
    let clock = Box::new(move || *clock.lock().unwrap());
    Edge::open(settings, probe.clone(), clock, Box::new(protected)).unwrap()
}

impl Bench {
    /// With these feeds; `{dir}` is the folder for their files.
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::in_dir(config, dir)
    }

    fn in_dir(config: &str, dir: tempfile::TempDir) -> Self {
        let (probe, now) = (Probe::new(10_000), Arc::new(Mutex::new(START)));
        let edge = open(dir.path(), config, &probe, &now);
        Self { edge, probe, now, config: config.into(), dir }
    }

    /// A feed `a` from the file `a`, with these lines in its section besides.
    fn of_file(lines: &str, content: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), content).unwrap();
        let config = format!("[[feed]]\nname = \"a\"\nsource = \"{{dir}}/a\"\n{lines}\n");
        let mut bench = Self::in_dir(&config, dir);
        bench.settle();
        bench
    }

    fn write(&self, content: &str) {
        // Another file, so that its stamp differs however quick the test is.
        let new = self.dir.path().join("a.new");
        fs::write(&new, content).unwrap();
        fs::rename(new, self.dir.path().join("a")).unwrap();
    }

    /// Ends the process and starts the next one, with the same filter or an empty one.
    fn restart(self, config: &str, keeps_filter: bool) -> Self {
        let Self { edge, probe, now, dir, .. } = self;
        drop(edge);
        let probe = if keeps_filter { probe } else { Probe::new(10_000) };
        let edge = open(dir.path(), config, &probe, &now);
        Self { edge, probe, now, config: config.into(), dir }
    }

    fn again(self) -> Self {
        let config = self.config.clone();
        self.restart(&config, true)
    }

    /// Ticks until nothing is under way.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.edge.tick();
            let busy = self.edge.feeds.slots.iter().any(|slot| slot.busy.is_some());
            if self.edge.feeds.publication.is_none() && !busy && self.edge.feeds.look_at_ms > 0 {
                return;
            }
        }
        panic!("it never settles");
    }

    fn pass(&mut self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        let mut now = self.now.lock().unwrap();
        now.wall_ms += ms;
        now.boot_ms += ms;
    }

    fn hours(&mut self, hours: u64) {
        self.pass(Duration::from_secs(3600 * hours));
        self.settle();
    }

    fn refresh(&mut self, force: bool) {
        self.edge.feed_refresh("a", &FeedRefresh { force }).unwrap();
        self.settle();
    }

    fn verdict(&self, address: &str, port: u16) -> Verdict {
        let now_s = self.now.lock().unwrap().boot_s();
        self.probe.verdict(address.parse().unwrap(), Scope::of_tcp_port(port), now_s).unwrap()
    }

    fn denied(&self, address: &str) -> bool {
        matches!(self.verdict(address, 25), Verdict::Denied(_))
    }

    fn report(&self) -> FeedReport {
        self.edge.feed_report("a").unwrap()
    }

    fn why(&self) -> String {
        self.report().refusal.map(|refusal| refusal.why).unwrap_or_default()
    }

    /// Entries in force.
    fn held(&self) -> usize {
        let mut count = 0;
        self.probe.feeds(&mut |_, _, _| count += 1).unwrap();
        count
    }

    /// How many times something has been put in force so far is told by the entries' own ends.
    fn ends_s(&self) -> Option<u32> {
        let mut end = None;
        self.probe.feeds(&mut |_, _, entry| end = Some(entry.expires_s)).unwrap();
        end
    }

    /// Hands content over as the relay does.
    fn deliver(&mut self, content: &str, etag: Option<&str>) -> Result<FeedAnswer, Problem> {
        let (incoming, mut file) = self.edge.feed_upload("a")?.begin()?;
        std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
        let etag = etag.map(str::to_owned);
        self.answered(|edge, reply| {
            edge.feed_content("a", incoming, Validators { etag, last_modified: None }, reply);
        })
    }

    fn answered(
        &mut self,
        ask: impl FnOnce(&mut Edge<Probe>, super::FeedReply),
    ) -> Result<FeedAnswer, Problem> {
        let (reply, mut answer) = oneshot::channel();
        ask(&mut self.edge, reply);
        self.settle();
        answer.try_recv().unwrap()
    }
}
