//! Failing disks and damaged rows: told as such, and the rest goes on.

use super::*;
use std::fs;

async fn two_messages(spool: &Spool, size: usize) -> (QueueId, QueueId) {
    let content = vec![b'x'; size];
    let hurt = store(spool, "s@y.example", &["a@x.example"], &content).await;
    (hurt, store(spool, "s@y.example", &["b@x.example"], &content).await)
}

/// Opens, finds `hurt` put aside and reported, and the other one untouched.
async fn check_put_aside(folder: &Path, hurt: QueueId, well: QueueId) {
    let spool = open(folder);
    assert!(spool.load(hurt).await.unwrap().is_none());
    assert_eq!(spool.damaged_total(), 1);
    assert_eq!(due(&spool).await, [(well, 0)]);
    assert!(spool.load(well).await.unwrap().is_some());
    let stats = spool.stats().await.unwrap();
    assert_eq!((stats.quarantined, stats.messages), (1, 2));
    let shown = spool.show(hurt).await.unwrap().unwrap();
    assert!(shown.summary.quarantined.is_some());
    assert_eq!(shown.summary.next_attempt, None);
    // Retrying brings it back into view; still damaged, it is put aside again.
    assert_eq!(spool.retry(vec![hurt]).await.unwrap(), 1);
    assert_eq!(due(&spool).await.len(), 2);
    assert!(spool.load(hurt).await.unwrap().is_none());
    assert_eq!(spool.delete(vec![hurt]).await.unwrap(), 1);
    assert_eq!(spool.stats().await.unwrap().quarantined, 0);
}

#[tokio::test]
async fn a_damaged_body_file_is_put_aside() {
    for damage in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let (hurt, well) = two_messages(&open(folder.path()), 5000).await;
        let file = folder.path().join("bodies").join(hurt.to_string());
        match damage {
            0 => fs::remove_file(&file).unwrap(),
            1 => fs::write(&file, vec![b'x'; 4999]).unwrap(),
            _ => {
                let mut content = vec![b'x'; 5000];
                content[4000] ^= 1;
                fs::write(&file, content).unwrap();
            }
        }
        check_put_aside(folder.path(), hurt, well).await;
    }
}

#[tokio::test]
async fn a_damaged_row_is_put_aside() {
    let damages = [
        "UPDATE bodies SET content = zeroblob(900) WHERE id = ?1",
        "DELETE FROM bodies WHERE id = ?1",
        "UPDATE bodies SET content = 'text' WHERE id = ?1",
        "UPDATE messages SET reverse_path = x'ff00' WHERE id = ?1",
    ];
    for damage in &damages[..3] {
        let folder = tempfile::tempdir().unwrap();
        let (hurt, well) = two_messages(&open(folder.path()), 900).await;
        let database = rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap();
        assert_eq!(database.execute(damage, [hurt.row()]).unwrap(), 1);
        check_put_aside(folder.path(), hurt, well).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let (hurt, _) = two_messages(&open(folder.path()), 900).await;
    let database = rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap();
    assert_eq!(database.execute(damages[3], [hurt.row()]).unwrap(), 1);
    let spool = open(folder.path());
    assert!(spool.load(hurt).await.unwrap().is_none());
    assert_eq!(spool.damaged_total(), 1);
}

#[tokio::test]
async fn a_damaged_recipient_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let (hurt, well) = two_messages(&spool, 900).await;
    let database = rusqlite::Connection::open(folder.path().join("queue.sqlite")).unwrap();
    let damage = "UPDATE recipients SET address = x'ff00' WHERE message = ?1";
    assert_eq!(database.execute(damage, [hurt.row()]).unwrap(), 1);
    assert_eq!(due(&spool).await, [(well, 0)]);
    assert_eq!((spool.damaged_total(), spool.stats().await.unwrap().quarantined), (1, 1));
    assert_eq!(due(&spool).await, [(well, 0)]);
    assert_eq!(spool.damaged_total(), 1, "put aside once");
    let listed = spool.list(Filter::default(), None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|message| message.id).collect::<Vec<_>>(), [hurt, well]);
    assert!(listed[0].quarantined.is_some());
    assert_eq!(spool.delete(vec![hurt]).await.unwrap(), 1);
}

#[tokio::test]
async fn orphans_are_swept_and_foreign_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let (one, two) = two_messages(&spool, 5000).await;
    // As a crash between the file and its row leaves it.
    let orphan = spool.allocate();
    drop(spool);
    let bodies = folder.path().join("bodies");
    fs::write(bodies.join(orphan.to_string()), b"x").unwrap();
    fs::write(bodies.join("README"), b"x").unwrap();
    fs::write(folder.path().join("incoming").join("half"), b"x").unwrap();
    let spool = open(folder.path());
    let mut left: Vec<String> = fs::read_dir(&bodies)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [one.to_string(), two.to_string(), "README".to_owned()]);
    assert!(spool.load(orphan).await.unwrap().is_none());
    assert_eq!(spool.stats().await.unwrap().messages, 2);
}

#[tokio::test]
async fn an_abandoned_commit_leaves_both_file_and_row_or_neither() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for step in 0..40u32 {
        let mut writer = spool.begin(envelope("s@y.example", &["a@x.example"])).unwrap();
        writer.write(&[b'x'; 5000]).unwrap();
        let mut commit = Box::pin(writer.commit());
        for _ in 0..step % 4 {
            let polled = tokio::time::timeout(Duration::from_micros(step.into()), &mut commit);
            if polled.await.is_ok() {
                break;
            }
        }
    }
    drop(spool);
    let spool = open(folder.path());
    let listed = spool.list(Filter::default(), None, 100).await.unwrap();
    assert_eq!(files(folder.path()), listed.len());
    for message in listed {
        assert!(spool.load(message.id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_full_or_failing_disk_is_told_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let before = store(&spool, "s@y.example", &["a@x.example"], b"x\r\n").await;
    // A large body meets a folder that is gone: the write fails, and so does the commit.
    fs::remove_dir(folder.path().join("incoming")).unwrap();
    let mut writer = spool.begin(envelope("s@y.example", &["a@x.example"])).unwrap();
    let error = writer.write(&[b'x'; 5000]).unwrap_err();
    assert_eq!(error.status(), (451, (4, 3, 0)));
    assert!(writer.write(b"x").is_err());
    assert!(matches!(writer.commit().await, Err(StoreError::Io(_))));
    fs::create_dir(folder.path().join("incoming")).unwrap();
    let after = store(&spool, "s@y.example", &["a@x.example"], &[b'x'; 5000]).await;
    assert_eq!(due(&spool).await, [(before, 0), (after, 0)]);
}

#[tokio::test]
async fn a_full_database_refuses_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.limit_pages(40).await;
    let mut stored = 0;
    let error = loop {
        let mut writer = spool.begin(envelope("s@y.example", &["a@x.example"])).unwrap();
        writer.write(&[b'x'; 900]).unwrap();
        match writer.commit().await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "the limit did not bite");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error}");
    assert_eq!(spool.stats().await.unwrap().messages, stored);
    spool.limit_pages(1_000_000).await;
    store(&spool, "s@y.example", &["a@x.example"], &[b'x'; 900]).await;
    assert_eq!(spool.stats().await.unwrap().messages, stored + 1);
}

#[tokio::test]
async fn one_bad_request_does_not_take_the_batch_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let taken = store(&spool, "s@y.example", &["a@x.example"], b"x\r\n").await;
    // An id that is taken breaks the primary key; it stands among good ones.
    let mut commits = tokio::task::JoinSet::new();
    for n in 0..50 {
        let mut writer = spool.begin(envelope("s@y.example", &["a@x.example"])).unwrap();
        if n == 25 {
            writer.pretend_id(taken);
        }
        commits.spawn(writer.commit());
    }
    let results = commits.join_all().await;
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    assert_eq!(spool.stats().await.unwrap().messages, 50);
}
