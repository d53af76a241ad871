//! Hosts of our own that name their clients by XCLIENT, and forward by XFORWARD.

use super::*;

const HOST: &str = "127.0.0.6";

fn behind_a_host(more: &str) -> String {
    format!("{MX}xclient = [\"{HOST}\"]\nxforward = [\"{HOST}\"]\n{more}")
}

async fn greeted(gateway: &Gateway, from: &str) -> Client<TcpStream> {
    let mut client = gateway.connect(from).await;
    assert!(client.reply().await.starts_with("220 "));
    client
}

/// Whether the client may relay.
async fn relays(client: &mut Client<TcpStream>) -> bool {
    client.expect("EHLO client.test", "250").await;
    client.expect("MAIL FROM:<a@foreign.test>", "250").await;
    client.say("RCPT TO:<b@elsewhere.test>").await.starts_with("250")
}

#[tokio::test]
async fn the_named_client_is_the_source_for_everything() {
    let gateway = Gateway::start(&behind_a_host("relay_for = [\"192.0.2.0/24\"]\n"));
    let mut client = greeted(&gateway, HOST).await;
    client.expect("XCLIENT NAME=spike.example ADDR=192.0.2.7 PORT=4711", "220 ").await;
    assert!(relays(&mut client).await);
    client.expect("RSET", "250").await;
    client.start_message().await;
    let reply = client.expect("x\r\n.", "250").await;
    let stored = gateway.stored(&reply).await;
    assert!(stored.contains("(spike.example [192.0.2.7])") && !stored.contains(HOST), "{stored}");

    let mut client = greeted(&gateway, HOST).await;
    client.expect("XCLIENT ADDR=203.0.113.7", "220 ").await;
    assert!(!relays(&mut client).await);
    assert_eq!(gateway.counted("evidence"), 1);
    // What it named may not name another, as a client whose octets a proxy passes on would.
    client.expect("RSET", "250").await;
    client.expect("XCLIENT ADDR=192.0.2.7", "550 5.7.0").await;
}

/// Else whoever is behind a proxy would have the proxy's rights: any account, any address.
#[tokio::test]
async fn who_was_named_in_any_way_may_name_nobody() {
    let gateway = Gateway::start(&behind_a_host("auth = \"offer\"\n"));
    for named in ["LOGIN=ann", "NAME=[UNAVAILABLE] HELO=h", &format!("ADDR={HOST}")] {
        let mut client = greeted(&gateway, HOST).await;
        client.expect(&format!("XCLIENT {named}"), "220 ").await;
        client.expect("XCLIENT LOGIN=ceo", "550 5.7.0").await;
        client.expect("XFORWARD ADDR=192.0.2.7", "550 5.7.0").await;
    }
}

#[tokio::test]
async fn a_stranger_may_say_nothing_of_others() {
    let gateway = Gateway::start(&behind_a_host("relay_for = [\"192.0.2.0/24\"]\n"));
    let mut client = greeted(&gateway, "127.0.0.9").await;
    let hello = client.expect("EHLO client.test", "250").await;
    assert!(!hello.contains("XCLIENT") && !hello.contains("XFORWARD"), "{hello}");
    client.expect("XCLIENT ADDR=192.0.2.7 LOGIN=ann", "550 5.7.0").await;
    client.expect("XFORWARD ADDR=192.0.2.7", "550 5.7.0").await;
    assert!(!relays(&mut client).await);
}

#[tokio::test]
async fn an_account_that_is_told_relays_where_accounts_may() {
    for (auth, relayed) in [("offer", true), ("off", false)] {
        let gateway = Gateway::start(&behind_a_host(&format!("auth = \"{auth}\"\n")));
        let mut client = greeted(&gateway, HOST).await;
        client.expect("XCLIENT ADDR=203.0.113.7 LOGIN=ann", "220 ").await;
        assert_eq!(relays(&mut client).await, relayed, "{auth}");
    }
}

#[tokio::test]
async fn the_named_clients_places_are_counted() {
    let limits = "[limits]\nconnections_per_source = 1\n";
    let gateway = Gateway::start(&behind_a_host(limits));
    let mut first = greeted(&gateway, HOST).await;
    let mut second = greeted(&gateway, HOST).await;
    first.expect("XCLIENT ADDR=203.0.113.7", "220 ").await;
    second.expect("XCLIENT ADDR=203.0.113.7", "421 4.7.0").await;
    second.closed().await;
}

#[tokio::test]
async fn what_is_forwarded_stands_in_received_and_decides_nothing() {
    let gateway = Gateway::start(&behind_a_host("relay_for = [\"192.0.2.0/24\"]\n"));
    let mut client = greeted(&gateway, HOST).await;
    client.expect("EHLO filter.test", "250").await;
    client.expect("XFORWARD NAME=spike.example ADDR=192.0.2.7 HELO=spike", "250").await;
    client.expect("MAIL FROM:<a@foreign.test>", "250").await;
    client.expect("RCPT TO:<b@elsewhere.test>", "550 5.7.1").await;
    client.expect("RCPT TO:<b@inside.test>", "250").await;
    client.expect("DATA", "354").await;
    let reply = client.expect("x\r\n.", "250").await;
    let stored = gateway.stored(&reply).await;
    let forwarded = "(forwarded for spike, spike.example [192.0.2.7])";
    assert!(stored.contains(forwarded) && stored.contains(HOST), "{stored}");
    // No EHLO between, which would end it too.
    client.expect("MAIL FROM:<a@foreign.test>", "250").await;
    client.expect("RCPT TO:<b@inside.test>", "250").await;
    client.expect("DATA", "354").await;
    let reply = client.expect("x\r\n.", "250").await;
    assert!(!gateway.stored(&reply).await.contains("forwarded"), "it was of one message");
}
