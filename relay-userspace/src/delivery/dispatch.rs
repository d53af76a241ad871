//! Which recipient goes to which destination, and when.
//!
//! One task takes new messages from the queue as they are stored, and reads what is due otherwise
//! in pages. It claims both in memory, groups them by message and destination, and hands them to
//! lanes. A lane holds a bounded number of recipients, so a slow destination with a
//! long backlog neither fills the memory nor holds up the others.

use super::lane::{self, Claim, Context, Job, Lane};
use super::settings::{DeliverySettings, Destination};
use crate::queue::{DueCursor, DueRecipient, Fresh, Kept, News, QueueId, Rest, Spool};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Due recipients read at once.
const PAGE: usize = 500;
/// Recipients claimed for one lane.
const LANE_MAX: usize = 400;
/// Recipients of one transaction; every server must take 100 (RFC 5321 section 4.5.3.1.8).
const RECIPIENTS_MAX: usize = 100;
/// The whole of what is due is looked through this often, whatever events say.
const SWEEP: Duration = Duration::from_secs(60);
/// A change is committed a little after its due time was taken: so far back new ones are sought.
/// What a stalled disk commits later still is found by the sweep.
const MARGIN: Duration = Duration::from_secs(1);
/// While a lane overflows, new mail is looked for no oftener than this: it would mostly be left
/// out again.
const PAUSE_WHEN_FULL: Duration = Duration::from_millis(50);

struct Dispatcher {
    context: Arc<Context>,
    lanes: HashMap<Destination, LaneState>,
    /// What is under way, with the due time it was claimed at.
    claims: HashMap<Claim, SystemTime>,
    released: mpsc::UnboundedReceiver<(Destination, Vec<Claim>)>,
    release: mpsc::UnboundedSender<(Destination, Vec<Claim>)>,
    links: JoinSet<()>,
    /// Where the scan goes on; `None` when it has come to the end.
    position: Option<DueCursor>,
    /// The scan serves this lane, and ends when the lane is full again.
    refilling: Option<Destination>,
    /// The farthest place any scan has seen.
    reached: DueCursor,
    /// When the clock alone makes a recipient due that the latest scan to the end could not find yet.
    due_next: tokio::time::Instant,
    /// The first recipient that was due again while the claim on it was not yet given back.
    due_again: Option<DueCursor>,
}

struct LaneState {
    lane: Arc<Lane>,
    claimed: usize,
    /// The first recipient that was left out because the lane was full.
    left_out: Option<DueCursor>,
}

/// How recipients came to be known.
enum Origin {
    /// They were read in the queue.
    Page,
    /// They were handed over, with their message if there was room for it.
    News(Option<Arc<Kept>>),
}

pub(super) async fn run(spool: Spool, settings: DeliverySettings, shutdown: CancellationToken) {
    let mut dispatcher = Dispatcher::new(Arc::new(Context { spool, settings, shutdown }));
    dispatcher.run().await;
    dispatcher.end().await;
}

impl Dispatcher {
    fn new(context: Arc<Context>) -> Self {
        let (release, released) = mpsc::unbounded_channel();
        Self {
            context,
            lanes: HashMap::new(),
            claims: HashMap::new(),
            released,
            release,
            links: JoinSet::new(),
            position: Some(DueCursor::START),
            refilling: None,
            reached: DueCursor::START,
            due_next: tokio::time::Instant::now(),
            due_again: None,
        }
    }

    async fn run(&mut self) {
        let context = Arc::clone(&self.context);
        let mut swept = tokio::time::Instant::now();
        while !context.shutdown.is_cancelled() {
            self.take_back();
            self.refill();
            if let Some(from) = self.position {
                match self.read_page(from).await {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::error!(%error, "the queue could not be read; trying again");
                        self.pause(Duration::from_secs(5)).await;
                        self.position = Some(DueCursor::START);
                    }
                }
                self.open_links();
                continue;
            }
            self.open_links();
            let wake = self.due_next.min(swept + SWEEP);
            tokio::select! {
                () = context.shutdown.cancelled() => {}
                () = context.spool.due_changed() => {
                    if self.lanes.values().any(|state| state.left_out.is_some()) {
                        self.pause(PAUSE_WHEN_FULL).await;
                    }
                    self.take_news();
                }
                Some((destination, claims)) = self.released.recv() => {
                    self.release(destination, &claims);
                    self.take_back();
                }
                Some(_) = self.links.join_next() => {}
                () = tokio::time::sleep_until(wake) => {
                    if swept.elapsed() >= SWEEP {
                        swept = tokio::time::Instant::now();
                        self.position = Some(DueCursor::START);
                    } else {
                        self.seek_new();
                    }
                }
            }
        }
    }

    async fn pause(&self, length: Duration) {
        let _ = timeout(length, self.context.shutdown.cancelled()).await;
    }

    /// New recipients may be due: they stand at the end of what is due, give or take the margin.
    fn seek_new(&mut self) {
        self.seek(self.reached.back(MARGIN));
    }

    fn seek(&mut self, from: DueCursor) {
        self.position = Some(self.position.map_or(from, |position| position.min(from)));
        self.refilling = None;
    }

    /// Goes on with what was left out for a lane that has room again.
    fn refill(&mut self) {
        let has_room = |state: &LaneState| state.claimed <= LANE_MAX / 2;
        for (destination, state) in &mut self.lanes {
            if self.position.is_none()
                && has_room(state)
                && let Some(from) = state.left_out.take()
            {
                self.position = Some(from);
                self.refilling = Some(*destination);
            }
        }
    }

    fn take_back(&mut self) {
        while let Ok((destination, claims)) = self.released.try_recv() {
            self.release(destination, &claims);
        }
    }

    fn release(&mut self, destination: Destination, claims: &[Claim]) {
        // Before the claims go: a message whose page was read first is known by its claim.
        self.take_news();
        for claim in claims {
            self.claims.remove(claim);
        }
        if let Some(state) = self.lanes.get_mut(&destination) {
            state.claimed = state.claimed.saturating_sub(claims.len());
        }
        if let Some(from) = self.due_again.take() {
            self.seek(from);
        }
    }

    /// Reads a page and claims from it. Claims are given back before a page is read and not while
    /// it is: a recipient that was done meanwhile is still claimed, and not taken for a new one.
    async fn read_page(&mut self, from: DueCursor) -> Result<(), crate::queue::StoreError> {
        let now = SystemTime::now();
        let (page, rest) = self.context.spool.due(now, from, PAGE).await?;
        let next = match rest {
            Rest::More(next) => Some(next),
            Rest::Until(due) => {
                // A millisecond more: due times are cut to milliseconds.
                let wait = due.map_or(SWEEP, |due| {
                    due.duration_since(now).unwrap_or_default() + Duration::from_millis(1)
                });
                self.due_next = tokio::time::Instant::now() + wait.min(SWEEP);
                None
            }
        };
        if let Some(last) = page.last() {
            self.reached = self.reached.max(DueCursor::after(last));
        }
        self.claim(page, &Origin::Page);
        self.position = next;
        // New mail may have been left out meanwhile: what stands before it is still to be read.
        let full_again = |destination| {
            let left_out = self.lanes.get(&destination).and_then(|state| state.left_out);
            left_out.is_some_and(|left_out| next.is_none_or(|next| left_out <= next))
        };
        if self.refilling.is_some_and(full_again) {
            self.position = None;
        }
        if self.position.is_none() {
            self.refilling = None;
        }
        Ok(())
    }

    /// Takes what the queue hands over: new messages themselves, or that there are others.
    fn take_news(&mut self) {
        let News { fresh, more } = self.context.spool.take_news();
        if more {
            self.seek_new();
        }
        for Fresh { recipients, kept } in fresh {
            self.claim(recipients, &Origin::News(kept));
        }
    }

    /// Claims recipients that are due, and gives them to their lanes. What a lane has no room for is
    /// left out; new mail is also left out where older mail was, and does not overtake it.
    fn claim(&mut self, due: Vec<DueRecipient>, origin: &Origin) {
        let is_new = matches!(origin, Origin::News(_));
        let mut jobs: BTreeMap<(QueueId, Destination), Vec<DueRecipient>> = BTreeMap::new();
        for recipient in due {
            let claim = (recipient.message, recipient.ordinal);
            if let Some(claimed_at) = self.claims.get(&claim) {
                if *claimed_at != recipient.due {
                    let here = DueCursor::before(&recipient);
                    self.due_again = Some(self.due_again.map_or(here, |place| place.min(here)));
                }
                continue;
            }
            let destination = self.context.settings.destination(&recipient.domain, recipient.route);
            let is_refilled = self.refilling == Some(destination);
            let state = self.lane(destination);
            let overtakes = is_new && (is_refilled || state.left_out.is_some());
            if state.claimed >= LANE_MAX || overtakes {
                let here = DueCursor::before(&recipient);
                state.left_out = Some(state.left_out.map_or(here, |place| place.min(here)));
                continue;
            }
            state.claimed += 1;
            self.claims.insert(claim, recipient.due);
            jobs.entry((recipient.message, destination)).or_default().push(recipient);
        }
        for ((message, destination), mut recipients) in jobs {
            while !recipients.is_empty() {
                let rest = recipients.split_off(recipients.len().min(RECIPIENTS_MAX));
                let kept = match origin {
                    Origin::News(kept) => kept.clone(),
                    Origin::Page => None,
                };
                let released = self.release.clone();
                let job = Job { destination, message, kept, recipients, released };
                self.lane(destination).lane.push(job);
                recipients = rest;
            }
        }
    }

    fn lane(&mut self, destination: Destination) -> &mut LaneState {
        let settings = &self.context.settings;
        self.lanes.entry(destination).or_insert_with(|| {
            let target = match destination {
                Destination::Inside(index) => Ok(settings.inside[index].next_hop.clone()),
                Destination::SmartHost => {
                    settings.smart_host.clone().ok_or("no smart host is configured")
                }
                Destination::NoInsideHost => {
                    Err("no inside host is configured for this inbound domain")
                }
            };
            LaneState { lane: Arc::new(Lane::new(target)), claimed: 0, left_out: None }
        })
    }

    /// Opens connections where jobs wait and limits allow, one for each lane in turn.
    fn open_links(&mut self) {
        while self.links.try_join_next().is_some() {}
        let settings = &self.context.settings;
        let mut opened: HashMap<Destination, usize> = HashMap::new();
        loop {
            let mut any = false;
            for (destination, LaneState { lane, .. }) in &self.lanes {
                let fresh = opened.entry(*destination).or_default();
                let free = lane.idle.load(Ordering::SeqCst) + *fresh;
                if self.links.len() >= settings.connections_max
                    || lane.links.load(Ordering::SeqCst) >= settings.connections_per_destination_max
                    || lane.waiting() <= free
                {
                    continue;
                }
                lane.links.fetch_add(1, Ordering::SeqCst);
                self.links.spawn(lane::carry(Arc::clone(&self.context), Arc::clone(lane)));
                *fresh += 1;
                any = true;
            }
            if !any {
                return;
            }
        }
    }

    /// Lets what is under way end; what is not simply stays due.
    async fn end(&mut self) {
        for state in self.lanes.values() {
            state.lane.clear();
        }
        let ended = async { while self.links.join_next().await.is_some() {} };
        if timeout(self.context.settings.shutdown_grace, ended).await.is_err() {
            tracing::warn!("deliveries under way were cut off; they will be tried again");
        }
        self.links.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::settings::InsideRoute;
    use crate::delivery::tests::store;
    use crate::queue::{Attempt, SenderReport, SpoolSettings};

    const A: Destination = Destination::Inside(0);

    /// Hosts for a.example and b.example, and nobody who carries anything to them.
    fn over(folder: &std::path::Path) -> Dispatcher {
        let settings = SpoolSettings { free_bytes_min: 1, ..SpoolSettings::default() };
        let spool = Spool::open(folder, settings).unwrap();
        let inside = ["a.example", "b.example"].map(|domain| InsideRoute {
            domains: vec![domain.to_owned()],
            next_hop: crate::delivery::NextHop::plain(vec![]),
        });
        let settings = DeliverySettings { inside: inside.to_vec(), ..DeliverySettings::default() };
        let shutdown = CancellationToken::new();
        let mut dispatcher = Dispatcher::new(Arc::new(Context { spool, settings, shutdown }));
        dispatcher.position = None;
        dispatcher
    }

    impl Dispatcher {
        async fn come(&mut self, number: usize, to: &str) {
            for _ in 0..number {
                store(&self.context.spool, "s@y.example", &[to], b"x\r\n").await;
                self.take_news();
            }
        }

        /// Whom the jobs of a lane are for: they are delivered.
        async fn deliver(&mut self) -> Vec<String> {
            let (mut to, lane) = (Vec::new(), Arc::clone(&self.lanes[&A].lane));
            while let Some(job) = lane.pop() {
                to.extend(job.recipients.iter().map(|due| due.address.clone()));
                let delivered = job.recipients.iter().map(|due| due.ordinal).collect();
                let attempt = Attempt {
                    message: job.message,
                    at: SystemTime::now(),
                    delivered,
                    deferred: vec![],
                    failed: vec![],
                    report: SenderReport::None,
                };
                self.context.spool.record(attempt).await.unwrap();
            }
            self.take_back();
            to
        }

        /// A turn of the loop. Whether there was anything to do.
        async fn turn(&mut self) -> bool {
            self.take_back();
            self.refill();
            let Some(from) = self.position else { return false };
            self.read_page(from).await.unwrap();
            true
        }
    }

    #[tokio::test]
    async fn a_refill_during_which_new_mail_comes_forgets_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let mut dispatcher = over(folder.path());
        dispatcher.come(LANE_MAX, "first@a.example").await;
        dispatcher.come(1, "left-out@a.example").await;
        dispatcher.come(3 * PAGE, "x@b.example").await;
        dispatcher.come(50, "behind@a.example").await;
        dispatcher.deliver().await;
        assert!(dispatcher.turn().await, "the refill");
        assert_eq!(dispatcher.refilling, Some(A));
        // The scan stands among the other's mail.
        dispatcher.come(LANE_MAX, "new@a.example").await;
        let mut delivered = Vec::new();
        while dispatcher.turn().await || dispatcher.lanes[&A].lane.waiting() > 0 {
            delivered.extend(dispatcher.deliver().await);
        }
        assert_eq!(delivered.len(), 1 + 50 + LANE_MAX, "the others wait for the next sweep");
        let is_new = |to: &String| to.starts_with("new");
        assert!(delivered.is_sorted_by_key(is_new), "new mail came first: {delivered:?}");
    }

    #[tokio::test]
    async fn what_was_found_and_delivered_before_it_was_handed_over_does_not_go_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut dispatcher = over(folder.path());
        store(&dispatcher.context.spool, "s@y.example", &["a@a.example"], b"x\r\n").await;
        dispatcher.position = Some(DueCursor::START);
        assert!(dispatcher.turn().await);
        assert_eq!(dispatcher.deliver().await, ["a@a.example"]);
        dispatcher.take_news();
        assert_eq!(dispatcher.lanes[&A].lane.waiting(), 0);
    }

    #[tokio::test]
    async fn new_mail_does_not_overtake_what_was_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut dispatcher = over(folder.path());
        dispatcher.come(LANE_MAX + 10, "old@a.example").await;
        dispatcher.deliver().await;
        // There is room, and nothing has been read yet.
        dispatcher.come(10, "new@a.example").await;
        assert_eq!(dispatcher.lanes[&A].lane.waiting(), 0);
        let mut delivered = Vec::new();
        while dispatcher.turn().await {
            delivered.extend(dispatcher.deliver().await);
        }
        let expected = [vec!["old@a.example"; 10], vec!["new@a.example"; 10]].concat();
        assert_eq!(delivered, expected);
    }
}
