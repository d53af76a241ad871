//! More clients than places.

use super::*;

const LIMITS: &str = "[limits]\nconnections = 4\nreserve = \"50%\"\n";

#[tokio::test]
async fn strangers_are_turned_away_first_and_read_why() {
    let gateway = Gateway::start(&format!("{MX}relay_for = [\"127.0.1.0/24\"]\n{LIMITS}"));
    let mut inside = Vec::new();
    for (from, expected) in [
        ("127.0.0.7", "220 "),
        ("127.0.0.8", "220 "),
        ("127.0.0.9", "421 4.7.0 Too many connections, try again later"),
        ("127.0.1.7", "220 "),
        ("127.0.1.8", "220 "),
        ("127.0.1.9", "421 4.3.2 Too many connections, try again later"),
    ] {
        let mut client = gateway.connect(from).await;
        let reply = client.reply().await;
        assert!(reply.starts_with(expected), "{from}: {reply}");
        inside.push(client);
    }
    assert_eq!(gateway.counted("connections_crowded"), 2);
    assert_eq!((gateway.counted("crowded_reserved"), gateway.counted("crowded_server")), (1, 1));
}

/// A place must not be held by saying nothing (the wait for a command is five minutes otherwise).
#[tokio::test]
async fn silent_strangers_make_room_while_it_is_busy_and_nobody_else_has_to() {
    let gateway = Gateway::start(&format!("{MX}relay_for = [\"127.0.1.0/24\"]\n{LIMITS}"));
    let mut known = gateway.connect("127.0.1.7").await;
    known.reply().await;
    let mut stranger = gateway.connect("127.0.0.7").await;
    stranger.reply().await;
    assert!(stranger.reply().await.starts_with("421 4.4.2"));
    stranger.closed().await;
    known.expect("NOOP", "250").await;
    assert_eq!(gateway.counted("sessions_hurried"), 1);
}

/// Nor by octets that make no command.
#[tokio::test]
async fn dribbling_holds_no_place_while_it_is_busy() {
    let gateway = Gateway::start(&format!("{MX}relay_for = [\"127.0.1.0/24\"]\n{LIMITS}"));
    let _known = gateway.connect("127.0.1.7").await;
    let mut stranger = gateway.connect("127.0.0.7").await;
    stranger.reply().await;
    let dribble = async {
        while gateway.counted("sessions_hurried") == 0 {
            let _or_its_end = stranger.stream.write_all(b"N").await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, dribble).await.expect("it holds its place");
}

/// Nor by a handshake that does not go on.
#[tokio::test]
async fn handshakes_hold_no_place_while_it_is_busy() {
    let submissions = "[[listener]]\nname = \"submissions\"\naddress = [\"127.0.0.1:0\"]\n\
                       tls = \"implicit\"\nrelay_for = [\"127.0.1.0/24\"]\ndnsbl = false\n";
    let gateway = Gateway::start(&format!("{submissions}{LIMITS}"));
    let _known = gateway.connect("127.0.1.7").await;
    let mut stranger = gateway.connect("127.0.0.7").await;
    stranger.closed().await;
    assert_eq!(gateway.counted("sessions_hurried"), 1);
}
