//! What senders ask for stays with the message, in databases of this layout and the one before.

use super::*;
use relay_core::smtp::options::{Notify, OriginalRecipient, Returned};

fn asked() -> NewMessage {
    let mut message = envelope("a@b.example", &["c@d.example", "ü@d.example"]);
    message.binary = true;
    message.options = MailOptions {
        utf8: false,
        require_tls: true,
        ret: Some(Returned::Full),
        envid: Some("an id".to_owned()),
    };
    message.recipients[1].options = RcptOptions {
        notify: Some(Notify::parse("SUCCESS,DELAY").unwrap()),
        orcpt: OriginalRecipient::parse("utf-8;ü@d.example"),
    };
    message
}

#[tokio::test]
async fn options_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let mut writer = spool.begin(asked()).unwrap();
    writer.set_utf8();
    let id = writer.commit().await.unwrap();
    let loaded = spool.load(id).await.unwrap().unwrap();
    assert!(loaded.binary);
    assert_eq!(loaded.options, MailOptions { utf8: true, ..asked().options });
    let (due, _) = spool.due(SystemTime::now(), DueCursor::START, 10).await.unwrap();
    let options: Vec<RcptOptions> = due.into_iter().map(|due| due.options).collect();
    let asked: Vec<RcptOptions> = asked().recipients.into_iter().map(|to| to.options).collect();
    assert_eq!(options, asked);
}

/// A queue that an older program left behind is taken over with its mail.
#[tokio::test]
async fn the_layout_before_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let id = store(&spool, "a@b.example", &["c@d.example"], b"x\r\n").await;
    drop(spool);
    let database = folder.path().join("queue.sqlite");
    let connection = rusqlite::Connection::open(&database).unwrap();
    for column in ["binary", "utf8", "require_tls", "ret", "envid"] {
        connection.execute_batch(&format!("ALTER TABLE messages DROP COLUMN {column}")).unwrap();
    }
    for column in ["notify", "orcpt"] {
        connection.execute_batch(&format!("ALTER TABLE recipients DROP COLUMN {column}")).unwrap();
    }
    connection.execute_batch("PRAGMA user_version = 1").unwrap();
    drop(connection);
    let spool = open(folder.path());
    let loaded = spool.load(id).await.unwrap().unwrap();
    assert_eq!((loaded.options, loaded.binary), (MailOptions::default(), false));
    assert_eq!(bytes_of(loaded.content), b"x\r\n");
    assert_eq!(due(&spool).await, [(id, 0)]);
}
