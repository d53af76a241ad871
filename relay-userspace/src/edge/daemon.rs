//! The one thread that owns the lists and the maps, and the handle by which others ask it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use relay_common::entry::List;
use tokio::sync::oneshot;

use super::feeds::{FeedReply, Incoming, Upload};
use super::filter::Filter;
use super::lines::Line;
use super::links::LinkNews;
use super::state::Edge;
use super::work::Work;
use crate::control::api::{
    AddRequest, BanAnswer, BanRequest, Changed, Code, ConfirmRequest, EdgeExplain, EdgeStats,
    EdgeStatus, ExplainQuery, FeedAnswer, FeedRefresh, FeedReport, FeedsReport, FlushRequest,
    ImportQuery, Judged, ListPage, ListQuery, Pending, Problem, RemoveRequest, StopRequest,
    Stopping, Validators, WorkReport,
};

/// Requests that may wait for the owner; above it callers are told to come again.
const WAITING_MAX: usize = 256;

type Reply<T> = oneshot::Sender<Result<T, Problem>>;

enum Request {
    Add(List, AddRequest, Reply<Changed>),
    Import(List, ImportQuery, Vec<Line>, Reply<Changed>),
    Replace(List, String, Vec<Line>, Reply<Changed>),
    Remove(List, RemoveRequest, Reply<Changed>),
    Flush(List, FlushRequest, Reply<Changed>),
    Pending(Reply<Vec<Pending>>),
    Confirm(ConfirmRequest, Reply<Changed>),
    Page(List, ListQuery, Reply<ListPage>),
    Ban(BanRequest, Reply<BanAnswer>),
    Explain(ExplainQuery, Reply<EdgeExplain>),
    Judge(ExplainQuery, Reply<Judged>),
    Status(Reply<EdgeStatus>),
    Stats(Reply<EdgeStats>),
    Stopping(StopRequest, Reply<Stopping>),
    Feed(FeedRequest),
    RuleNames(Vec<u32>, Reply<Vec<(u32, String)>>),
    /// Look at the clock now.
    Tick(Reply<()>),
    Stop,
}

/// What is asked about feeds.
enum FeedRequest {
    All(Reply<FeedsReport>),
    One(String, Reply<FeedReport>),
    Refresh(String, FeedRefresh, Reply<FeedAnswer>),
    Upload(String, Reply<Upload>),
    Content(String, Incoming, Validators, FeedReply),
    Unchanged(String, Validators, FeedReply),
    Failed(String, String, FeedReply),
}

/// Asks the owner. Cheap to clone; every answer comes after what it says has been done.
#[derive(Clone, Debug)]
pub struct EdgeHandle {
    requests: SyncSender<Request>,
    links: Arc<LinkNews>,
    work: Arc<Work>,
}

/// The owner's thread.
#[derive(Debug)]
pub struct EdgeThread<F> {
    handle: EdgeHandle,
    thread: JoinHandle<Edge<F>>,
}

/// Starts the owner on a thread of its own.
///
/// # Errors
/// The system gives no thread.
pub fn start<F: Filter + 'static>(mut edge: Edge<F>) -> std::io::Result<EdgeThread<F>> {
    edge.read_feeds_beside()?;
    let (requests, inbox) = sync_channel(WAITING_MAX);
    let (links, work) = (edge.link_news(), Arc::clone(&edge.work));
    let thread =
        std::thread::Builder::new().name("edge-owner".into()).spawn(move || own(edge, &inbox))?;
    Ok(EdgeThread { handle: EdgeHandle { requests, links, work }, thread })
}

impl<F> EdgeThread<F> {
    pub fn handle(&self) -> EdgeHandle {
        self.handle.clone()
    }

    /// Ends the owner after what it was asked before, and gives back the edge, its filter still in
    /// force. `None` if the owner has panicked.
    pub fn stop(self) -> Option<Edge<F>> {
        // An owner that is gone needs no telling.
        let _ = self.handle.requests.send(Request::Stop);
        self.thread.join().ok()
    }
}

fn own<F: Filter>(mut edge: Edge<F>, inbox: &Receiver<Request>) -> Edge<F> {
    loop {
        match inbox.recv_timeout(edge.next_wake()) {
            Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return edge,
            Ok(request) => {
                // What has expired by now must not be part of an answer.
                edge.tick();
                answer(&mut edge, request);
                edge.work.end();
            }
            Err(RecvTimeoutError::Timeout) => edge.tick(),
        }
    }
}

fn answer<F: Filter>(edge: &mut Edge<F>, request: Request) {
    // A caller that has gone away wants no answer; what it asked for is done all the same.
    match request {
        Request::Add(list, request, reply) => drop(reply.send(edge.add(list, &request))),
        Request::Import(list, query, lines, reply) => {
            drop(reply.send(edge.import(list, &query, lines)));
        }
        Request::Replace(list, source, rows, reply) => {
            drop(reply.send(edge.replace(list, &source, rows)));
        }
        Request::Remove(list, request, reply) => drop(reply.send(edge.remove(list, &request))),
        Request::Flush(list, request, reply) => drop(reply.send(edge.flush(list, &request))),
        Request::Pending(reply) => drop(reply.send(edge.pending_changes())),
        Request::Confirm(request, reply) => drop(reply.send(edge.confirm(&request))),
        Request::Page(list, query, reply) => drop(reply.send(edge.page(list, &query))),
        Request::Ban(request, reply) => drop(reply.send(edge.ban(&request))),
        Request::Explain(query, reply) => drop(reply.send(edge.explain(&query))),
        Request::Judge(query, reply) => drop(reply.send(edge.judge(&query))),
        Request::Status(reply) => drop(reply.send(edge.status())),
        Request::Stats(reply) => drop(reply.send(edge.stats())),
        Request::Stopping(request, reply) => drop(reply.send(edge.stopping(request))),
        Request::Feed(request) => answer_feed(edge, request),
        Request::RuleNames(slots, reply) => drop(reply.send(edge.rule_names(&slots))),
        Request::Tick(reply) => drop(reply.send(Ok(()))),
        Request::Stop => {}
    }
}

fn answer_feed<F: Filter>(edge: &mut Edge<F>, request: FeedRequest) {
    match request {
        FeedRequest::All(reply) => drop(reply.send(edge.feeds_report())),
        FeedRequest::One(name, reply) => drop(reply.send(edge.feed_report(&name))),
        FeedRequest::Refresh(name, request, reply) => {
            drop(reply.send(edge.feed_refresh(&name, &request)));
        }
        FeedRequest::Upload(name, reply) => drop(reply.send(edge.feed_upload(&name))),
        FeedRequest::Content(name, incoming, validators, reply) => {
            edge.feed_content(&name, incoming, validators, reply);
        }
        FeedRequest::Unchanged(name, validators, reply) => {
            edge.feed_unchanged(&name, validators, reply);
        }
        FeedRequest::Failed(name, reason, reply) => edge.feed_failed(&name, reason, reply),
    }
}

impl EdgeHandle {
    pub async fn add(&self, list: List, request: AddRequest) -> Result<Changed, Problem> {
        self.ask(|reply| Request::Add(list, request, reply)).await
    }

    pub async fn import(
        &self,
        list: List,
        query: ImportQuery,
        lines: Vec<Line>,
    ) -> Result<Changed, Problem> {
        self.ask(|reply| Request::Import(list, query, lines, reply)).await
    }

    /// Makes these the only rows of a source, as for the entries of the configuration.
    pub async fn replace(
        &self,
        list: List,
        source: impl Into<String>,
        rows: Vec<Line>,
    ) -> Result<Changed, Problem> {
        self.ask(|reply| Request::Replace(list, source.into(), rows, reply)).await
    }

    pub async fn remove(&self, list: List, request: RemoveRequest) -> Result<Changed, Problem> {
        self.ask(|reply| Request::Remove(list, request, reply)).await
    }

    pub async fn flush(&self, list: List, request: FlushRequest) -> Result<Changed, Problem> {
        self.ask(|reply| Request::Flush(list, request, reply)).await
    }

    /// The changes that wait to be confirmed.
    pub async fn pending(&self) -> Result<Vec<Pending>, Problem> {
        self.ask(Request::Pending).await
    }

    pub async fn confirm(&self, request: ConfirmRequest) -> Result<Changed, Problem> {
        self.ask(|reply| Request::Confirm(request, reply)).await
    }

    pub async fn page(&self, list: List, query: ListQuery) -> Result<ListPage, Problem> {
        self.ask(|reply| Request::Page(list, query, reply)).await
    }

    pub async fn ban(&self, request: BanRequest) -> Result<BanAnswer, Problem> {
        self.ask(|reply| Request::Ban(request, reply)).await
    }

    pub async fn explain(&self, query: ExplainQuery) -> Result<EdgeExplain, Problem> {
        self.ask(|reply| Request::Explain(query, reply)).await
    }

    pub async fn judge(&self, query: ExplainQuery) -> Result<Judged, Problem> {
        self.ask(|reply| Request::Judge(query, reply)).await
    }

    pub async fn status(&self) -> Result<EdgeStatus, Problem> {
        self.ask(Request::Status).await
    }

    pub async fn stats(&self) -> Result<EdgeStats, Problem> {
        self.ask(Request::Stats).await
    }

    /// Has the filter left or taken off, as asked. The owner itself goes on.
    pub async fn stopping(&self, request: StopRequest) -> Result<Stopping, Problem> {
        self.ask(|reply| Request::Stopping(request, reply)).await
    }

    pub async fn feeds(&self) -> Result<FeedsReport, Problem> {
        self.ask(|reply| Request::Feed(FeedRequest::All(reply))).await
    }

    pub async fn feed(&self, name: String) -> Result<FeedReport, Problem> {
        self.ask(|reply| Request::Feed(FeedRequest::One(name, reply))).await
    }

    pub async fn feed_refresh(
        &self,
        name: String,
        request: FeedRefresh,
    ) -> Result<FeedAnswer, Problem> {
        self.ask(|reply| Request::Feed(FeedRequest::Refresh(name, request, reply))).await
    }

    pub(super) async fn feed_upload(&self, name: String) -> Result<Upload, Problem> {
        self.ask(|reply| Request::Feed(FeedRequest::Upload(name, reply))).await
    }

    /// Hands over what was fetched; answered when it is kept, or refused.
    pub(super) async fn feed_content(
        &self,
        name: String,
        incoming: Incoming,
        validators: Validators,
    ) -> Result<FeedAnswer, Problem> {
        let content = |reply| FeedRequest::Content(name, incoming, validators, reply);
        self.ask(|reply| Request::Feed(content(reply))).await
    }

    pub async fn feed_unchanged(
        &self,
        name: String,
        validators: Validators,
    ) -> Result<FeedAnswer, Problem> {
        self.ask(|reply| Request::Feed(FeedRequest::Unchanged(name, validators, reply))).await
    }

    pub async fn feed_failed(&self, name: String, reason: String) -> Result<FeedAnswer, Problem> {
        self.ask(|reply| Request::Feed(FeedRequest::Failed(name, reason, reply))).await
    }

    /// What the rules of these counter slots are called; slots without a rule are left out.
    pub async fn rule_names(&self, slots: Vec<u32>) -> Result<Vec<(u32, String)>, Problem> {
        self.ask(|reply| Request::RuleNames(slots, reply)).await
    }

    /// Has the owner look at its interfaces, before it answers whoever waits.
    pub(super) async fn look_at_links(&self) -> Result<(), Problem> {
        self.links.tell();
        // Where too many wait already, the first of them will do.
        self.tick().await
    }

    /// What the owner is at now. It is not asked itself.
    pub(super) fn work(&self) -> WorkReport {
        self.work.report()
    }

    pub(super) fn link_news(&self) -> &LinkNews {
        &self.links
    }

    /// Has the owner look at its clock and do what is due.
    pub async fn tick(&self) -> Result<(), Problem> {
        self.ask(Request::Tick).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        match self.requests.try_send(request(reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                let message = format!("{WAITING_MAX} requests are waiting for the edge");
                return Err(Problem::new(Code::Busy, message).remedy("try again in a moment"));
            }
            Err(TrySendError::Disconnected(_)) => return Err(stopped()),
        }
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> Problem {
    Problem::new(Code::Internal, "the owner of the lists has stopped").remedy("restart the edge")
}
