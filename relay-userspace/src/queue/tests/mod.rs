//! The queue as its users see it: over a real folder, through the handle.

mod crash;
mod damage;
mod handoff;
mod model;
mod options;

use super::*;
use relay_core::smtp::options::{MailOptions, RcptOptions};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

pub(super) fn open(folder: &Path) -> Spool {
    let settings =
        SpoolSettings { inline_bytes_max: 1000, free_bytes_min: 1, ..SpoolSettings::default() };
    // A process that another test starts holds every lock of this one between fork and exec.
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match Spool::open(folder, settings.clone()) {
            Err(error) if error.to_string().contains("in use") && Instant::now() < until => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

pub(super) fn envelope(from: &str, to: &[&str]) -> NewMessage {
    let recipient = |address: &&str| NewRecipient {
        address: (*address).to_owned(),
        options: RcptOptions::default(),
        route: Route::Relay,
        rule: "test".to_owned(),
    };
    NewMessage {
        reverse_path: from.to_owned(),
        recipients: to.iter().map(recipient).collect(),
        options: MailOptions::default(),
        binary: false,
        source: Some("192.0.2.7".parse().unwrap()),
        account: None,
        helo: "client.example".to_owned(),
        listener: "mx".to_owned(),
    }
}

pub(super) async fn store(spool: &Spool, from: &str, to: &[&str], content: &[u8]) -> QueueId {
    let mut writer = spool.begin(envelope(from, to)).unwrap();
    for chunk in content.chunks(300) {
        writer.write(chunk).unwrap();
    }
    writer.commit().await.unwrap()
}

pub(super) fn bytes_of(content: Content<std::fs::File>) -> Vec<u8> {
    match content {
        Content::Inline(bytes) => bytes.to_vec(),
        Content::File(mut file) => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
            bytes
        }
    }
}

fn attempt(message: QueueId) -> Attempt {
    Attempt {
        message,
        at: SystemTime::now(),
        delivered: vec![],
        deferred: vec![],
        failed: vec![],
        report: SenderReport::None,
    }
}

async fn due(spool: &Spool) -> Vec<(QueueId, u32)> {
    let (due, _) = spool.due(SystemTime::now(), DueCursor::START, 1000).await.unwrap();
    due.into_iter().map(|due| (due.message, due.ordinal)).collect()
}

fn files(folder: &Path) -> usize {
    let count = |name| std::fs::read_dir(folder.join(name)).unwrap().count();
    count("bodies") + count("incoming")
}

#[tokio::test]
async fn content_comes_back_byte_for_byte_also_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let small: Vec<u8> = b"Subject: x\r\n\r\n\0\xff.\r\n..\r\n".to_vec();
    let large: Vec<u8> = (0..50_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let edge = vec![b'x'; 1000];
    let mut ids = Vec::new();
    let spool = open(folder.path());
    for content in [&small, &large, &edge, &vec![]] {
        ids.push(store(&spool, "a@b.example", &["c@d.example"], content).await);
    }
    drop(spool);
    let spool = open(folder.path());
    for (id, content) in ids.iter().zip([&small, &large, &edge, &vec![]]) {
        let loaded = spool.load(*id).await.unwrap().unwrap();
        assert_eq!(loaded.size, content.len() as u64);
        assert_eq!(loaded.eight_bit, !content.is_ascii());
        assert_eq!(matches!(loaded.content, Content::File(_)), content.len() > 1000);
        assert_eq!(&bytes_of(loaded.content), content);
    }
    assert!(ids.is_sorted());
    assert!(spool.allocate() > ids[3], "ids rise over a restart");
}

/// As if the clock had been years ahead, and the message were delivered since.
#[tokio::test]
async fn no_restart_and_no_clock_gives_an_id_again() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let far: QueueId = "7000000000000".parse().unwrap();
    assert!(spool.allocate() < far);
    let mut writer = spool.begin(envelope("a@b.example", &["c@d.example"])).unwrap();
    writer.pretend_id(far);
    writer.commit().await.unwrap();
    spool.record(Attempt { delivered: vec![0], ..attempt(far) }).await.unwrap();
    drop(spool);
    assert!(open(folder.path()).allocate() > far);
}

#[tokio::test]
async fn no_more_large_messages_come_in_at_once_than_there_are_files_for() {
    let folder = tempfile::tempdir().unwrap();
    let settings = SpoolSettings {
        inline_bytes_max: 1000,
        free_bytes_min: 1,
        files_max: 1,
        ..SpoolSettings::default()
    };
    let spool = Spool::open(folder.path(), settings).unwrap();
    let begin = || spool.begin(envelope("a@b.example", &["c@d.example"])).unwrap();
    let (mut first, mut second) = (begin(), begin());
    first.write(&[b'x'; 2000]).unwrap();
    let refused = second.write(&[b'x'; 2000]).unwrap_err();
    assert!(matches!(refused, StoreError::Busy(_)), "{refused}");
    assert!(matches!(second.commit().await, Err(StoreError::Busy(_))));
    store(&spool, "a@b.example", &["c@d.example"], b"a small one\r\n").await;
    first.commit().await.unwrap();
    begin().write(&[b'x'; 2000]).expect("the file before is closed");
}

#[tokio::test]
async fn what_is_not_committed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for size in [10, 10_000] {
        let mut writer = spool.begin(envelope("a@b.example", &["c@d.example"])).unwrap();
        writer.write(&vec![b'x'; size]).unwrap();
    }
    assert_eq!(files(folder.path()), 0);
    assert_eq!(spool.stats().await.unwrap(), QueueStats::default());
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let error = Spool::open(folder.path(), SpoolSettings::default()).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    drop(spool);
    open(folder.path());
}

#[tokio::test]
async fn recipients_leave_one_by_one_and_the_message_with_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let to = ["a@x.example", "b@x.example", "c@x.example"];
    let id = store(&spool, "s@y.example", &to, &[b'x'; 5000]).await;
    assert_eq!(due(&spool).await, [(id, 0), (id, 1), (id, 2)]);

    let later = SystemTime::now() + Duration::from_secs(600);
    let deferral = Deferral { ordinal: 1, due: later, error: "451 later".into() };
    let outcome = Attempt { delivered: vec![0], deferred: vec![deferral], ..attempt(id) };
    spool.record(outcome).await.unwrap();
    assert_eq!(due(&spool).await, [(id, 2)]);
    let (_, rest) = spool.due(SystemTime::now(), DueCursor::START, 10).await.unwrap();
    let Rest::Until(Some(next)) = rest else { panic!("{rest:?}") };
    assert!(later.duration_since(next).unwrap() < Duration::from_millis(1));
    let detail = spool.show(id).await.unwrap().unwrap();
    assert_eq!(detail.recipients[0].error.as_deref(), Some("451 later"));
    assert_eq!(detail.recipients[0].attempts, 1);
    assert_eq!(detail.source.as_deref(), Some("192.0.2.7"));

    assert_eq!(spool.retry(vec![id]).await.unwrap(), 1);
    assert_eq!(due(&spool).await.len(), 2);
    spool.record(Attempt { delivered: vec![1, 2], ..attempt(id) }).await.unwrap();
    assert!(spool.load(id).await.unwrap().is_none());
    assert_eq!(files(folder.path()), 0, "the body file goes with its message");
    assert_eq!(spool.retry(vec![id]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_bounce_is_queued_with_the_removal_and_only_if_something_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let id = store(&spool, "s@y.example", &["a@x.example"], b"x\r\n").await;
    let bounce = |of: QueueId| Attempt {
        failed: vec![Failure { ordinal: 0, reason: "550 no".into() }],
        report: SenderReport::Bounce(Box::new(Bounce {
            id: spool.allocate(),
            about: vec![0],
            message: envelope("", &["s@y.example"]),
            content: b"Subject: failed\r\n\r\nsorry\r\n".to_vec(),
        })),
        ..attempt(of)
    };
    spool.record(bounce(id)).await.unwrap();
    let listed = spool.list(Filter::default(), None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].reverse_path, "");
    assert_eq!(listed[0].first_recipient.as_deref(), Some("s@y.example"));

    spool.record(bounce(id)).await.unwrap();
    assert_eq!(spool.stats().await.unwrap().messages, 1, "the recipient was gone already");

    let null = listed[0].id;
    let failed = vec![Failure { ordinal: 0, reason: "550 nobody".into() }];
    let badmail = Attempt { failed, report: SenderReport::Badmail, ..attempt(null) };
    spool.record(badmail).await.unwrap();
    let stats = spool.stats().await.unwrap();
    assert_eq!((stats.messages, stats.badmail, stats.due), (1, 1, 0));
    let detail = spool.show(null).await.unwrap().unwrap();
    assert_eq!(detail.badmail, [("s@y.example".into(), "550 nobody".into())]);
    assert_eq!(detail.headers, b"Subject: failed\r\n");
    assert_eq!(spool.delete(vec![null]).await.unwrap(), 1);
    assert_eq!(spool.stats().await.unwrap(), QueueStats::default());
}

#[tokio::test]
async fn filters_and_pages() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let mut ids = Vec::new();
    for n in 0..10 {
        let from = if n % 2 == 0 { "Even@Spam.example" } else { "" };
        let to = format!("r@D{}.example", n % 3);
        ids.push(store(&spool, from, &[&to], b"x\r\n").await);
    }
    let count = async |sender: Option<&str>, domain: Option<&str>| {
        let filter =
            Filter { sender: sender.map(str::to_owned), recipient: domain.map(str::to_owned) };
        spool.list(filter, None, 100).await.unwrap().len()
    };
    assert_eq!(count(None, None).await, 10);
    assert_eq!(count(Some(""), None).await, 5);
    assert_eq!(count(Some("even@spam.example"), None).await, 5);
    assert_eq!(count(Some("@SPAM.example"), None).await, 5);
    assert_eq!(count(Some("@pam.example"), None).await, 0);
    assert_eq!(count(None, Some("d0.EXAMPLE")).await, 4);
    assert_eq!(count(Some(""), Some("d0.example")).await, 2);
    assert_eq!(count(Some("' OR 1=1 --"), None).await, 0);
    let page = spool.list(Filter::default(), Some(ids[3]), 2).await.unwrap();
    assert_eq!(page.iter().map(|m| m.id).collect::<Vec<_>>(), ids[4..6]);
    let spam = Filter { sender: Some("@spam.example".into()), recipient: None };
    assert_eq!(spool.delete_matching(spam).await.unwrap(), 5);
    assert_eq!(spool.retry_matching(Filter::default()).await.unwrap(), 5);
}

#[tokio::test]
async fn the_due_are_paged_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for _ in 0..7 {
        store(&spool, "s@y.example", &["a@x.example", "b@x.example"], b"x\r\n").await;
    }
    let (mut seen, mut cursor) = (Vec::new(), Some(DueCursor::START));
    while let Some(from) = cursor {
        let (page, rest) = spool.due(SystemTime::now(), from, 4).await.unwrap();
        seen.extend(page.iter().map(|due| (due.message, due.ordinal)));
        cursor = match rest {
            Rest::More(next) => Some(next),
            Rest::Until(time) => {
                assert_eq!(time, None);
                None
            }
        };
    }
    assert_eq!(seen, due(&spool).await);
    assert_eq!(seen.len(), 14);
}

#[tokio::test]
async fn below_the_reserve_nothing_is_begun() {
    let folder = tempfile::tempdir().unwrap();
    let settings = SpoolSettings { free_bytes_min: u64::MAX, ..SpoolSettings::default() };
    let spool = Spool::open(folder.path(), settings).unwrap();
    let error = spool.begin(envelope("", &["a@x.example"])).unwrap_err();
    assert_eq!(error.status(), (452, (4, 3, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_not_open_puts_off_and_opens_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let settings = SpoolSettings { free_bytes_min: 1, ..SpoolSettings::default() };
    let spool = Spool::closed(&folder.path().join("queue"), settings);
    let error = spool.begin(envelope("", &["a@x.example"])).unwrap_err();
    assert_eq!(error.status(), (452, (4, 3, 1)));
    assert_eq!(spool.stats().await.unwrap_err().status(), (452, (4, 3, 1)));
    let opened = tokio::spawn({
        let spool = spool.clone();
        async move { spool.opened().await }
    });
    // Something in the way, as where there is no room for the folder.
    std::fs::write(folder.path().join("queue"), "").unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), spool.keep_trying()).await.is_err());
    assert!(spool.closed_for().is_some_and(|why| !why.is_empty()) && !opened.is_finished());
    std::fs::remove_file(folder.path().join("queue")).unwrap();
    spool.keep_trying().await;
    opened.await.unwrap();
    assert_eq!(spool.closed_for(), None);
    store(&spool, "s@y.example", &["a@x.example"], b"x").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_writers_are_committed_together() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), SpoolSettings::default()).unwrap();
    let content = vec![b'x'; 4096];
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (spool, content) = (spool.clone(), content.clone());
        tasks.spawn(async move {
            for _ in 0..40 {
                let mut writer = spool.begin(envelope("a@b.example", &["c@d.example"])).unwrap();
                writer.write(&content).unwrap();
                writer.commit().await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let rate = 2000.0 / started.elapsed().as_secs_f64();
    println!("{rate:.0} durable messages of 4 KiB a second");
    assert_eq!(spool.stats().await.unwrap().messages, 2000);
}
