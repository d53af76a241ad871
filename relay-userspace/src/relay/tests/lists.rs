//! The lists against sources that a host of ours names: the kernel has not seen their addresses.

use axum::{Json, Router, routing::post};

use super::*;
use crate::control::{
    api::{EDGE_SOCKET, ExplainQuery, Judged, PacketVerdict},
    extract::Body,
    peer::Access,
    server::{ControlSocket, Limits},
};

const DENIED: &str = "203.0.113.66";
const HOST: &str = "127.0.0.5";

async fn judge(Body(query): Body<ExplainQuery>) -> Json<Judged> {
    let denied = query.address.to_string() == DENIED && query.port == 25;
    let verdict = if denied { PacketVerdict::Denied } else { PacketVerdict::Pass };
    Json(Judged { verdict })
}

/// An edge with one denial, of port 25.
fn edge(gateway: &Gateway) {
    let path = gateway.folder.path().join("run").join(EDGE_SOCKET);
    let socket = ControlSocket::bind(&path, None).unwrap();
    let router = Router::new().route("/v1/judge", post(judge));
    let stop = gateway.stop.clone();
    tokio::spawn(async move {
        let until = stop.cancelled();
        socket.serve(router, Access::new(None), Limits::default(), until).await.unwrap();
    });
}

#[tokio::test]
async fn a_denied_source_is_refused_whoever_names_it() {
    for (listed, command) in [("proxy_protocol", false), ("xclient", true)] {
        let gateway = Gateway::start(&format!("{MX}{listed} = [\"{HOST}\"]\n"));
        edge(&gateway);
        // The port is what the host calls it; the listener takes mail from strangers.
        for (source, port, refused) in
            [(DENIED, 25, true), (DENIED, 587, true), ("203.0.113.7", 25, false)]
        {
            let mut client = gateway.connect(HOST).await;
            let reply = if command {
                client.reply().await;
                client.say(&format!("XCLIENT ADDR={source} DESTPORT={port}")).await
            } else {
                let header = format!("PROXY TCP4 {source} 198.51.100.1 4711 {port}\r\n");
                client.send(header.as_bytes()).await;
                client.reply().await
            };
            let expected = if refused { "554 5.7.1 Your address" } else { "220 " };
            assert!(reply.starts_with(expected), "{listed} {source}:{port}: {reply}");
        }
        assert_eq!(gateway.counted("connections_denied"), 2);
        assert_eq!(gateway.counted("edge_unreachable"), 0);
    }
}
