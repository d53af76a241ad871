//! New mail goes to delivery out of memory: once, and not after it was deleted.

use super::sink::Answer;
use super::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_mail_goes_out_once_whether_it_is_handed_over_or_found() {
    let mut sink = Sink::usual().await;
    let gateway = Gateway::start(to_sink(&sink));
    let mut senders = JoinSet::new();
    for sender in 0..8 {
        let spool = gateway.spool.clone();
        senders.spawn(async move {
            for n in 0..100 {
                let to = format!("{sender}.{n}@x.example");
                let id = store(&spool, "s@y.example", &[&to], b"x\r\n").await;
                // Makes the dispatcher read what is due while more is handed over.
                spool.delete(vec![id; usize::from(n % 10 == 9)]).await.unwrap();
                spool.retry(vec![spool.allocate()]).await.unwrap();
            }
        });
    }
    senders.join_all().await;
    gateway.until_empty().await;
    let mut seen = BTreeSet::new();
    while let Ok(taken) = sink.taken.try_recv() {
        assert!(seen.insert(taken.to), "delivered twice");
    }
    // A tenth were deleted, some of them too late.
    assert!((720..=800).contains(&seen.len()), "{}", seen.len());
    gateway.stop().await;
}

#[tokio::test]
async fn what_was_deleted_while_it_waited_in_memory_does_not_go_out() {
    let gate = Arc::new(Notify::new());
    let (held, mails) = (Arc::clone(&gate), std::sync::atomic::AtomicUsize::new(0));
    let script = move |line: &str| {
        let is_first = || mails.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        if line.starts_with("MAIL") && is_first() {
            return Answer::Held(Arc::clone(&held));
        }
        Answer::Usual
    };
    let mut sink = Sink::start(Arc::new(script), None).await;
    let settings = DeliverySettings { connections_per_destination_max: 1, ..to_sink(&sink) };
    let gateway = Gateway::start(settings);
    for to in ["first@x.example", "deleted@x.example", "third@x.example"] {
        let id = gateway.send("s@y.example", &[to], b"x\r\n").await;
        if to.starts_with("deleted") {
            assert_eq!(gateway.spool.delete(vec![id]).await.unwrap(), 1);
        }
    }
    gate.notify_one();
    assert_eq!(sink.next().await.to, ["first@x.example"]);
    assert_eq!(sink.next().await.to, ["third@x.example"]);
    gateway.until_empty().await;
    assert!(sink.is_empty());
    gateway.stop().await;
}
