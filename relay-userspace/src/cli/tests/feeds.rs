//! What the commands say about feeds.

use super::*;

#[tokio::test]
async fn what_is_left_out_of_a_feed_is_said_wherever_feeds_are_shown() {
    let said = "198.51.100.0/24\n0.0.0.0/0\n192.0.2.0/24\n192.0.2.7\n";
    let world = World::with_feeds(&[("wide", said), ("small", "203.0.113.7\n")]);
    let without = "0.0.0.0/0, since it holds 198.51.100.1, a gateway";
    let list = world.said("feed list", b"").await.out;
    let line = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("wide").ends_with(&format!("0        without {without}, and 1 more")), "{list}");
    assert!(line("small").ends_with(" 0"), "{list}");
    let shown = world.said("feed show wide", b"").await.out;
    for part in [
        "prefixes      1 IPv4, 0 IPv6; 4 were read, 1 are in force\n",
        &format!("left out      {without}\n"),
        "left out      198.51.100.0/24, since it holds 198.51.100.1, a gateway\n",
    ] {
        assert!(shown.contains(part), "{part} is missing: {shown}");
    }
    let status = world.said("status", b"").await.out;
    let notice = format!("feed wide: without {without}, and 1 more\n");
    assert!(status.contains(&notice) && status.contains("good\n"), "{status}");
    assert!(!status.contains("feed small:"), "{status}");
}
