//! What the relay answers, as the commands show it.

use axum::routing::post;

use super::*;

/// A message as a list and as `show` tell of it, with text of a stranger's making.
fn a_queued_message() -> (QueueSummary, QueueMessage) {
    let recipient = QueueRecipient {
        address: "bob@inside.test".into(),
        rule: "domain inside.test (inbound)".into(),
        state: "waiting".into(),
        attempts: 2,
        next_attempt: Some(Time(WALL_S + 300)),
        last_error: Some("451 later\u{1b}[2J".into()),
    };
    let message = QueueMessage {
        id: "q1".into(),
        sender: String::new(),
        size_bytes: 1234,
        arrived: Time(WALL_S - 60),
        source: None,
        account: None,
        helo: "client.test".into(),
        listener: "mx".into(),
        put_aside: None,
        recipients: vec![recipient],
        headers: "Subject: x\u{1b}[2J".into(),
    };
    let summary = QueueSummary {
        id: "q1".into(),
        sender: String::new(),
        size_bytes: 1234,
        arrived: Time(WALL_S - 60),
        recipients: 1,
        first_recipient: Some("bob@inside.test".into()),
        badmail: 0,
        attempts: 2,
        next_attempt: Some(Time(WALL_S + 300)),
        last_error: Some("451 later\u{1b}[2J".into()),
    };
    (summary, message)
}

#[tokio::test]
async fn the_relays_commands_speak_its_language() {
    let mut world = World::new();
    let (summary, message) = a_queued_message();
    let page = QueuePage { messages: vec![summary], next: None };
    let routes = Router::new()
        .route("/v1/queue", get(move || async { Json(page) }))
        .route("/v1/queue/q1", get(move || async { Json(message) }))
        .route(
            "/v1/queue/delete",
            post(|Json(select): Json<QueueSelect>| async move {
                let count = u64::from(select.all);
                Json(Affected { count, missing: select.ids })
            }),
        )
        .route(
            "/v1/accounts",
            post(|Json(account): Json<AccountPassword>| async move {
                assert_eq!(
                    (account.name.as_str(), account.password.as_str()),
                    ("alice", "s3 cret")
                );
                Json(Done {})
            }),
        );
    world.serve(RELAY_SOCKET, routes);
    let list = world.said("queue list", b"").await;
    assert!(list.out.contains("q1") && list.out.contains("<>") && list.out.contains("(in 5m)"));
    assert!(!list.out.contains('\u{1b}'), "a stranger's text steers no terminal");
    let json = world.said("queue list --json", b"").await.out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["messages"][0]["id"], "q1");
    assert!(world.said("queue show q1", b"").await.out.contains("<bob@inside.test>"));
    assert_eq!(world.said("queue show ../accounts", b"").await.exit, Exit::Nothing);
    world
        .check(
            "queue delete x",
            Exit::Nothing,
            "queue: deleted 0 messages\n",
            "x is not in the queue\n",
        )
        .await;
    world.check("queue delete --all", Exit::Done, "queue: deleted 1 message\n", "").await;
    let said = world.said("account add alice", b"s3 cret\r\n").await;
    assert_eq!((said.out.as_str(), said.exit), ("account alice: added\n", Exit::Done));
    let said = world.said("account add alice", b"\n").await;
    assert_eq!(said.exit, Exit::Failed);
    assert!(said.err.contains("the password is empty"));
}
