//! From an edge that says what is due, over a real https server, back to the edge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::edge::{Got, TestEdge, due};
use super::server::*;
use crate::control::api::{FeedReport, Time, Validators};
use crate::control::client::Client;
use crate::relay::counters::Counters;
use crate::relay::feeds::run::{Feeds, run};

const LIST: &[u8] = b"192.0.2.0/24\n198.51.100.7\n";

struct Running {
    counters: Arc<Counters>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
    _dir: tempfile::TempDir,
}

/// Begins to fetch, every 10 ms, for the edge below the lab's folder.
fn start(lab: Lab) -> Running {
    let counters = Arc::new(Counters::default());
    let feeds = Feeds {
        fetcher: Arc::new(lab.fetcher),
        authorities: BTreeMap::from(
            ["drop", "broken"].map(|name| (name.to_owned(), lab.pems[0].clone())),
        ),
        edge: Client::edge(lab.dir.path()),
        counters: Arc::clone(&counters),
    };
    let stop = CancellationToken::new();
    let names = lab.names;
    let running = run(feeds, Duration::from_millis(10), stop.clone());
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        running.await;
        drop(names);
    }));
    Running { counters, stop, task, _dir: lab.dir }
}

fn url(https: &Https, path: &str) -> String {
    format!("https://{HOST}:{}{path}", https.address.port())
}

#[tokio::test]
async fn what_is_due_is_fetched_and_handed_over_whole() {
    let lab = Lab::new().await;
    let list: Vec<u8> = LIST.iter().copied().cycle().take(5_000_000).collect();
    let served = list.clone();
    let https = lab.serve(move |_| answer("200 OK", &["etag: \"a&b =1\""], &served)).await;
    let mut edge = TestEdge::new(vec![due("drop", &url(&https, "/"))]);
    edge.serve(&lab.dir.path().join("edge.sock"));
    let (folder, left) = (lab.fetcher.folder.clone(), lab.fetcher.folder.join("drop"));
    std::fs::write(left, "of a relay that was killed").unwrap();
    let running = start(lab);
    let Got::Content(name, validators, body) = edge.next().await else { panic!("no content") };
    assert_eq!(name, "drop");
    let etag = Some("\"a&b =1\"".to_owned());
    assert_eq!(validators, Validators { etag, last_modified: None });
    assert!(body == list);
    running.stop.cancel();
    running.task.await.unwrap();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    assert_eq!(https.requests().len(), 1);
}

#[tokio::test]
async fn a_failure_is_told_and_asking_by_hand_ends_the_wait() {
    let lab = Lab::new().await;
    let https = lab
        .serve(|request| match request.starts_with("GET /drop") {
            true => answer("200 OK", &[], LIST),
            false => answer("404 Not Found", &[], b""),
        })
        .await;
    let feeds = vec![due("broken", &url(&https, "/none")), due("drop", &url(&https, "/drop"))];
    let mut edge = TestEdge::new(feeds);
    edge.serve(&lab.dir.path().join("edge.sock"));
    let running = start(lab);
    let got = [edge.next().await, edge.next().await];
    let why = format!("{HOST}:{} answered 404 Not Found", https.address.port());
    let failed = |got: &Got| *got == Got::Failed("broken".to_owned(), why.clone());
    // One broken feed does not hinder another.
    assert!(got.iter().any(failed), "{got:?}");
    assert!(got.iter().any(|got| matches!(got, Got::Content(name, ..) if name == "drop")));
    edge.has_been_asked_anew().await;
    assert_eq!(https.requests().len(), 2);
    let (failed_count, fetched) = (&running.counters.feeds_failed, &running.counters.feeds_fetched);
    assert_eq!((failed_count.get(), fetched.get()), (1, 1));
    edge.set_due("broken", true);
    assert!(failed(&edge.next().await));
    assert!(edge.nothing_came());
}

#[tokio::test]
async fn what_was_fetched_waits_for_an_edge_that_dies_meanwhile() {
    let lab = Lab::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let (held, Then::Say(list)) = (Arc::clone(&gate), answer("200 OK", &[], LIST)) else {
        panic!("an answer is said")
    };
    let https = lab.serve(move |_| Then::Held(Arc::clone(&held), list.clone())).await;
    let socket = lab.dir.path().join("edge.sock");
    let mut edge = TestEdge::new(vec![due("drop", &url(&https, "/"))]);
    // Away at the start, there to say what is due, then away again.
    let _running = start(lab);
    edge.serve(&socket);
    while https.requests().is_empty() {
        edge.has_been_asked_anew().await;
    }
    edge.go_away().await;
    let dying = UnixListener::bind(&socket).unwrap();
    gate.add_permits(1);
    loop {
        let mut word = [0; 26];
        let (mut stream, _) = dying.accept().await.unwrap();
        stream.read_exact(&mut word).await.unwrap();
        if word == *b"POST /v1/feeds/drop/conten" {
            break;
        }
    }
    drop(dying);
    edge.serve(&socket);
    let Got::Content(_, _, body) = edge.next().await else { panic!("no content") };
    assert_eq!(body, LIST);
    assert_eq!(https.requests().len(), 1);
}

#[tokio::test]
async fn content_that_the_edge_refuses_is_not_fetched_again_before_its_time() {
    let lab = Lab::new().await;
    let https = lab.serve(|_| answer("200 OK", &[], b"<html>")).await;
    let mut edge = TestEdge::new(vec![due("drop", &url(&https, "/"))]);
    edge.serve(&lab.dir.path().join("edge.sock"));
    edge.refuse_content("line 1 is no prefix");
    let running = start(lab);
    assert!(matches!(edge.next().await, Got::Content(..)));
    edge.has_been_asked_anew().await;
    assert_eq!(https.requests().len(), 1);
    assert!(edge.nothing_came());
    assert_eq!(running.counters.feeds_fetched.get(), 1);
}

#[tokio::test]
async fn a_server_that_is_busy_is_not_asked_again_and_the_edge_is_told() {
    let lab = Lab::new().await;
    let https = lab.serve(|_| answer("503 Busy", &["retry-after: 7200"], b"")).await;
    // By the clock it is overdue: that it is due is no sign that someone asked for it.
    let feed = FeedReport { next_refresh: Time(0), ..due("drop", &url(&https, "/")) };
    let mut edge = TestEdge::new(vec![feed]);
    edge.serve(&lab.dir.path().join("edge.sock"));
    let running = start(lab);
    let says = |got: Got, why: &str| matches!(got, Got::Failed(_, text) if text.contains(why));
    assert!(says(edge.next().await, "503 Service Unavailable, to be asked again in 7200 s"));
    edge.has_been_asked_anew().await;
    edge.set_due("drop", true);
    assert!(says(edge.next().await, "its server wants to be left alone for another"));
    assert_eq!(https.requests().len(), 1);
    assert_eq!(running.counters.feeds_failed.get(), 1);
}
