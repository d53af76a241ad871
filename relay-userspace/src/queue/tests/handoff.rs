//! What was just stored is handed over as it would be found and read.

use super::*;

async fn stored(spool: &Spool, content: &[u8]) -> QueueId {
    store(spool, "s@y.example", &["a@X.example", "b@z.example"], content).await
}

#[tokio::test]
async fn a_new_message_is_handed_over_as_it_would_be_found_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let id = stored(&spool, b"small\r\n").await;
    spool.due_changed().await;
    let News { fresh, more } = spool.take_news();
    assert!(!more);
    let [Fresh { recipients, kept: Some(kept) }] = &fresh[..] else { panic!("{fresh:?}") };
    let (found, _) = spool.due(SystemTime::now(), DueCursor::START, 10).await.unwrap();
    assert_eq!(*recipients, found);
    let loaded = spool.load(id).await.unwrap().unwrap();
    let kept = spool.kept(kept).expect("nothing was removed");
    assert_eq!(format!("{kept:?}"), format!("{loaded:?}"));
    assert!(spool.take_news().fresh.is_empty(), "it is handed over once");
}

#[tokio::test]
async fn a_large_message_is_handed_over_without_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    stored(&spool, &[b'x'; 2_000]).await;
    let News { fresh, .. } = spool.take_news();
    assert!(matches!(&fresh[..], [Fresh { recipients, kept: None }] if recipients.len() == 2));
}

#[tokio::test]
async fn once_anything_is_removed_what_is_kept_is_to_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let [first, second] = [stored(&spool, b"1\r\n").await, stored(&spool, b"2\r\n").await];
    let kept = spool.take_news().fresh.remove(1).kept.unwrap();
    assert!(spool.kept(&kept).is_some());
    spool.record(Attempt { delivered: vec![0, 1], ..attempt(first) }).await.unwrap();
    assert!(spool.kept(&kept).is_some(), "an attempt removes nothing that is still to go");
    spool.delete(vec![second]).await.unwrap();
    assert!(spool.kept(&kept).is_none());
}

#[tokio::test]
async fn what_is_removed_in_the_transaction_that_stores_it_is_to_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let mut together = 0;
    for _ in 0..50 {
        let mut writer = spool.begin(envelope("s@y.example", &["a@x.example"])).unwrap();
        writer.write(b"x\r\n").unwrap();
        let id = writer.queue_id();
        // The first keeps the writer busy, while the others wait for it together.
        let (busy, removal) = (spool.retry(vec![id]), spool.delete(vec![id]));
        let (_, stored, removed) = tokio::join!(busy, writer.commit(), removal);
        stored.unwrap();
        let fresh = spool.take_news().fresh;
        if removed.unwrap() == 1 {
            together += 1;
            assert!(fresh.iter().flat_map(|fresh| &fresh.kept).all(|it| spool.kept(it).is_none()));
        }
    }
    assert!(together > 0);
}

#[tokio::test]
async fn memory_is_bounded_and_the_rest_is_found_in_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        SpoolSettings { inline_bytes_max: 1 << 20, free_bytes_min: 1, ..Default::default() };
    let spool = Spool::open(folder.path(), settings).unwrap();
    for _ in 0..5 {
        stored(&spool, &[b'x'; 1 << 20]).await;
    }
    let kept = |news: &News| news.fresh.iter().filter(|fresh| fresh.kept.is_some()).count();
    let news = spool.take_news();
    assert_eq!((news.fresh.len(), kept(&news)), (5, 4));
    drop(news);
    stored(&spool, &[b'x'; 1 << 20]).await;
    assert_eq!(kept(&spool.take_news()), 1, "there is room again");

    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..1_001 {
        let spool = spool.clone();
        tasks.spawn(async move { stored(&spool, b"x\r\n").await });
    }
    tasks.join_all().await;
    let news = spool.take_news();
    assert_eq!((news.fresh.len(), news.more), (1_000, true));
}
