use proptest::prelude::*;
use relay_common::parse::Family;

use super::*;
use crate::edge::changes::Put;

fn memory() -> Store {
    Store::prepare(Connection::open_in_memory().unwrap()).unwrap()
}

fn row(prefix: &str, source: &str, rule: &str, expires: Option<u64>) -> Row {
    Row {
        prefix: prefix.parse().unwrap(),
        scope: Scope::SMTP,
        observe: false,
        reason: Reason::Manual,
        rule: rule.into(),
        source: source.into(),
        comment: String::new(),
        created: Time(100),
        expires: expires.map(Time),
    }
}

fn put(store: &mut Store, list: List, rows: &[Row]) {
    let mut txn = store.begin().unwrap();
    for row in rows {
        txn.put(list, row).unwrap();
    }
    txn.commit().unwrap();
}

#[test]
fn a_row_is_replaced_by_its_own_source_alone() {
    let mut store = memory();
    let prefix: IpNet = "192.0.2.0/24".parse().unwrap();
    let mut txn = store.begin().unwrap();
    let first = row("192.0.2.0/24", "cli", "cli", None);
    assert_eq!(txn.put(List::Deny, &first).unwrap(), Put::Added);
    assert_eq!(txn.put(List::Deny, &first).unwrap(), Put::Unchanged);
    let ending = Row { expires: Some(Time(200)), created: Time(150), ..first.clone() };
    assert_eq!(txn.put(List::Deny, &ending).unwrap(), Put::Updated);
    assert_eq!(txn.put(List::Deny, &row("192.0.2.0/24", "ban", "x", None)).unwrap(), Put::Added);
    assert_eq!(txn.put(List::Allow, &first).unwrap(), Put::Added);
    txn.commit().unwrap();
    let rows = store.rows_on((List::Deny, prefix)).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1], Row { created: Time(100), ..ending });
    assert_eq!(store.next_expiry_s().unwrap(), Some(200));
}

#[test]
fn a_transaction_that_is_dropped_leaves_nothing() {
    let mut store = memory();
    let mut txn = store.begin().unwrap();
    txn.put(List::Deny, &row("192.0.2.0/24", "cli", "cli", None)).unwrap();
    drop(txn);
    assert!(store.page(List::Deny, None, None, 10).unwrap().is_empty());
    assert!(store.rules().unwrap().is_empty());
}

#[test]
fn rows_outlive_the_process_and_a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists.db");
    let kept = row("2001:db8::/64", "cli", "cli", Some(900));
    put(&mut Store::open(&path).unwrap(), List::Deny, std::slice::from_ref(&kept));
    let store = Store::open(&path).unwrap();
    assert_eq!(store.page(List::Deny, None, None, 10).unwrap(), [kept]);
    store.connection.pragma_update(None, "user_version", 9).unwrap();
    drop(store);
    assert!(matches!(Store::open(&path), Err(StoreError::Version { found: 9 })));
}

#[test]
fn a_database_of_an_earlier_version_is_taken_over() {
    for version in 1..SCHEMA_VERSION {
        of_version(version);
    }
}

fn of_version(version: i64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lists.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(SCHEMA_1).unwrap();
    if version > 1 {
        old.execute_batch(SINCE_VERSION_1).unwrap();
    }
    old.pragma_update(None, "user_version", version).unwrap();
    old.execute_batch(
        "INSERT INTO rule VALUES (1, 'dnsbl X');
         INSERT INTO entry (list, prefix, source, scope, reason, rule, rule_text, comment,
             created_s, expires_s)
             VALUES (1, x'04c000020018', 'ban', 1, 2, 1, 'dnsbl X', 'seen', 100, 900);
         INSERT INTO history VALUES (x'04c000020920', 800);",
    )
    .unwrap();
    drop(old);
    for _ in 0..2 {
        let store = Store::open(&path).unwrap();
        let rows = store.page(List::Deny, None, None, 10).unwrap();
        let kept = Row {
            scope: Scope::MX,
            reason: Reason::Dnsbl,
            comment: "seen".into(),
            ..row("192.0.2.0/24", "ban", "dnsbl X", Some(900))
        };
        assert_eq!(rows, [kept]);
        assert_eq!(store.slot_of("dnsbl X").unwrap(), 1);
        assert_eq!(store.ban_ends("192.0.2.9/32".parse().unwrap()).unwrap(), [800]);
        assert_eq!(store.pending().unwrap(), []);
        let version: i64 =
            store.connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(version, SCHEMA_VERSION);
    }
}

#[test]
fn lists_of_the_last_version_are_read_where_there_is_no_room_for_this_one() {
    let old = Connection::open_in_memory().unwrap();
    old.execute_batch(SCHEMA_1).unwrap();
    old.execute_batch(SINCE_VERSION_1).unwrap();
    old.execute_batch(
        "PRAGMA user_version = 2;
         INSERT INTO rule VALUES (1, 'cli');
         INSERT INTO entry (list, prefix, source, scope, reason, rule, rule_text, comment,
             created_s, expires_s)
             VALUES (1, x'04c000020018', 'cli', 1, 0, 1, 'cli', '', 100, NULL);",
    )
    .unwrap();
    let pages: i64 = old.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    old.execute_batch(&format!("PRAGMA max_page_count = {pages}")).unwrap();
    let mut store = Store::prepare(old).unwrap();
    assert_eq!(store.page(List::Deny, None, None, 10).unwrap().len(), 1);
    assert_eq!(store.slot_of("cli").unwrap(), 1);
    assert!(store.begin().is_ok(), "no transaction was left open");
    // Of version 1 the lists lack what they need.
    store.connection.pragma_update(None, "user_version", 1).unwrap();
    assert!(matches!(Store::prepare(store.connection), Err(StoreError::Sqlite(_))));
}

#[test]
fn the_ban_with_the_least_time_left_is_found_among_those_that_stand_alone() {
    let mut store = memory();
    let txn = store.begin().unwrap();
    assert_eq!(txn.shortest_ban(Family::V4).unwrap(), None);
    drop(txn);
    put(
        &mut store,
        List::Deny,
        &[
            row("192.0.2.1/32", "cli", "x", Some(10)),
            row("192.0.2.2/32", "ban", "x", Some(20)),
            row("192.0.2.2/32", "import:a", "x", None),
            row("192.0.2.3/32", "ban", "x", Some(40)),
            row("192.0.2.4/32", "ban", "x", Some(30)),
            row("2001:db8::/64", "ban", "x", Some(15)),
        ],
    );
    let txn = store.begin().unwrap();
    let found = |family| txn.shortest_ban(family).unwrap().unwrap().to_string();
    assert_eq!(found(Family::V4), "192.0.2.4/32");
    assert_eq!(found(Family::V6), "2001:db8::/64");
}

#[test]
fn pages_join_to_the_whole_list() {
    let mut store = memory();
    let rows: Vec<Row> = (0..25u8)
        .flat_map(|n| {
            let prefix = format!("192.0.2.{n}/32");
            [row(&prefix, "ban", "a", None), row(&prefix, "cli", "b", None)]
        })
        .collect();
    put(&mut store, List::Deny, &rows);
    let mut read: Vec<Row> = Vec::new();
    loop {
        let after = read.last().map(|row| (row.prefix, row.source.clone()));
        let after = after.as_ref().map(|(prefix, source)| (*prefix, source.as_str()));
        let page = store.page(List::Deny, None, after, 7).unwrap();
        if page.is_empty() {
            break;
        }
        read.extend(page);
    }
    assert_eq!(read, rows);
    assert_eq!(store.page(List::Deny, Some("cli"), None, 99).unwrap().len(), 25);
}

#[test]
fn slots_are_kept_then_recycled_then_shared() {
    let mut store = memory();
    put(&mut store, List::Deny, &[row("192.0.2.1/32", "cli", "first", None)]);
    let mut txn = store.begin().unwrap();
    txn.inner
        .execute_batch(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {RULE_SLOT_MAX}) \
             INSERT INTO rule (slot, text) SELECT i, 'r' || i FROM n;
             INSERT INTO entry (list, prefix, source, scope, reason, rule, rule_text, comment, \
             created_s, expires_s) SELECT 1, CAST('x' || slot AS BLOB), 'cli', 1, 0, slot, text, '', 0, NULL \
             FROM rule WHERE slot > 1 AND slot <> 777;"
        ))
        .unwrap();
    txn.put(List::Deny, &row("192.0.2.2/32", "cli", "new", None)).unwrap();
    txn.put(List::Deny, &row("192.0.2.3/32", "cli", "one too many", None)).unwrap();
    assert_eq!(txn.commit().unwrap(), [777]);
    assert_eq!(store.slot_of("first").unwrap(), 1);
    assert_eq!(store.slot_of("new").unwrap(), 777);
    assert_eq!(store.slot_of("one too many").unwrap(), RULE_SLOT_OTHER);
    // A number that was given back is found again.
    let txn = store.begin().unwrap();
    txn.inner.execute("UPDATE rule SET text = 'feed gone' WHERE slot = 500", []).unwrap();
    txn.inner.execute("DELETE FROM entry WHERE rule = 500", []).unwrap();
    txn.commit().unwrap();
    let forgotten = store.begin().unwrap().forget_feed_rules(|_| false).unwrap();
    assert_eq!(forgotten, [(500, "feed gone".to_owned())]);
    let mut txn = store.begin().unwrap();
    txn.put(List::Deny, &row("192.0.2.4/32", "cli", "in the gap", None)).unwrap();
    txn.put(List::Deny, &row("192.0.2.5/32", "cli", "too many again", None)).unwrap();
    assert_eq!(txn.commit().unwrap(), [500]);
    assert_eq!(store.slot_of("in the gap").unwrap(), 500);
    assert_eq!(store.slot_of("too many again").unwrap(), RULE_SLOT_OTHER);
}

#[test]
fn old_bans_are_forgotten_and_a_lifted_one_is_forgiven() {
    let mut store = memory();
    let network: IpNet = "192.0.2.7/32".parse().unwrap();
    let month = HISTORY_KEPT.as_secs();
    let txn = store.begin().unwrap();
    txn.remember_ban(network, 1_000, 900).unwrap();
    txn.remember_ban(network, 2_000, 1_900).unwrap();
    txn.commit().unwrap();
    assert_eq!(store.ban_ends(network).unwrap(), [1_000, 2_000]);
    let txn = store.begin().unwrap();
    txn.remember_ban("192.0.2.8/32".parse().unwrap(), month + 9_000, month + 1_000).unwrap();
    txn.commit().unwrap();
    assert_eq!(store.ban_ends(network).unwrap(), [2_000]);
    let txn = store.begin().unwrap();
    txn.forgive(network).unwrap();
    txn.commit().unwrap();
    assert!(store.ban_ends(network).unwrap().is_empty());
}

proptest! {
    #[test]
    fn keys_round_trip_and_sort_as_prefixes_do(
        a in any::<(u128, u8, bool)>(), b in any::<(u128, u8, bool)>(),
    ) {
        let net = |(bits, len, v4): (u128, u8, bool)| -> IpNet {
            let net = if v4 {
                IpNet::new(IpAddr::from((bits as u32).to_be_bytes()), len % 33)
            } else {
                IpNet::new(IpAddr::from(bits.to_be_bytes()), len % 129)
            };
            net.unwrap().trunc()
        };
        let (a, b) = (net(a), net(b));
        prop_assert_eq!(prefix_of(&prefix_bytes(a)).unwrap(), a);
        prop_assert_eq!(prefix_bytes(a).cmp(&prefix_bytes(b)), a.cmp(&b));
    }
}
