//! From a next hop's names to a connection, and one message over it.

use super::lane::{Context, Lane};
use super::link::{Link, Stream, TlsStart};
use super::settings::{DeliverySettings, HostPort, NextHop};
use crate::queue::LoadedMessage;
use relay_core::smtp::client::{
    ClientJob, ClientSettings, ClientTls, Failure, FailureKind, Outcome, OutgoingMessage,
    RecipientStatus, Stage,
};
use relay_core::smtp::reply::EnhancedCode;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;

/// How far a message got.
#[derive(Debug)]
pub(super) enum Reached {
    /// A host took the message up, and this came of it.
    Host { peer: String, outcome: Outcome },
    /// No host did. With a status it never will.
    Nobody { reason: String, status: Option<EnhancedCode> },
}

/// Sends one message: over `link` if it is still good, else over a new connection to the first
/// host that takes one, which is left in `link`.
pub(super) async fn deliver(
    context: &Context,
    lane: &Lane,
    hop: &NextHop,
    link: &mut Option<Link>,
    outgoing: OutgoingMessage,
    message: &LoadedMessage,
    preface: Option<String>,
) -> Reached {
    let content = Sent { message, preface };
    if let Some(open) = link
        && open.next(outgoing.clone()).is_ok()
    {
        let outcome = content.over(open).await;
        if !went_stale(&outcome) {
            return Reached::Host { peer: open.peer.clone(), outcome };
        }
    }
    *link = None;
    let (settings, retries_asked) = (&context.settings, context.spool.retries_asked());
    if let Some(reason) = lane.suspension(retries_asked) {
        return Reached::Nobody { reason, status: None };
    }
    let reached = connect(settings, hop, link, outgoing, &content).await;
    if let Reached::Nobody { reason, status: None } = &reached {
        lane.suspend(settings.suspend, reason, retries_asked);
    }
    reached
}

/// What goes out as content.
struct Sent<'a> {
    message: &'a LoadedMessage,
    /// Goes before it.
    preface: Option<String>,
}

impl Sent<'_> {
    async fn over(&self, link: &mut Link) -> Outcome {
        link.set_preface(self.preface.clone());
        link.settle(self.message).await
    }
}

/// The server closed an idle connection before it heard of the message: that says nothing of the
/// message, and a new connection decides.
fn went_stale(outcome: &Outcome) -> bool {
    outcome.recipients.iter().all(|status| match status {
        RecipientStatus::Failed(Failure { stage: Stage::Reset | Stage::Mail, kind }) => {
            match kind {
                FailureKind::Closed => true,
                FailureKind::Refused(response) => response.code == 421,
                _ => false,
            }
        }
        _ => false,
    })
}

/// What the host said before it heard of the message: another host may do better.
fn host_failure(outcome: &Outcome) -> Option<&Failure> {
    match outcome.recipients.first() {
        Some(RecipientStatus::Failed(failure)) => {
            matches!(failure.stage, Stage::Greeting | Stage::Hello | Stage::StartTls | Stage::Auth)
                .then_some(failure)
        }
        _ => None,
    }
}

async fn connect(
    settings: &DeliverySettings,
    hop: &NextHop,
    link: &mut Option<Link>,
    outgoing: OutgoingMessage,
    content: &Sent<'_>,
) -> Reached {
    let mut reasons = Vec::new();
    let mut loops = false;
    for host in &hop.hosts {
        let addresses = match places(settings, host).await {
            Ok(addresses) => addresses,
            Err(reason) => {
                reasons.push(reason);
                continue;
            }
        };
        for address in addresses {
            if let Place::Tcp(address) = address
                && settings.own.is_own(address)
            {
                loops = true;
                reasons.push(format!("{host} at {address} is this gateway itself: a loop"));
                continue;
            }
            match over_address(settings, hop, host, address, &outgoing, content).await {
                Ok((connected, outcome)) => {
                    let peer = connected.peer.clone();
                    *link = Some(connected);
                    return Reached::Host { peer, outcome };
                }
                Err(reason) => reasons.push(reason),
            }
        }
    }
    // RFC 3463 X.4.6: only a loop and nothing else is for good.
    let status =
        (loops && reasons.iter().all(|reason| reason.ends_with("a loop"))).then_some((5, 4, 6));
    if reasons.is_empty() {
        reasons.push("the next hop has no host".to_owned());
    }
    Reached::Nobody { reason: reasons.join("; "), status }
}

/// Where a host listens.
#[derive(Debug, Clone, Copy)]
enum Place {
    Tcp(SocketAddr),
    /// The host's name is the socket's path.
    Unix,
}

async fn places(settings: &DeliverySettings, host: &HostPort) -> Result<Vec<Place>, String> {
    if host.is_path() {
        return Ok(vec![Place::Unix]);
    }
    let found = match host.host.parse::<IpAddr>() {
        Ok(literal) => vec![literal],
        Err(_) => settings
            .resolver
            .addresses(&host.host)
            .await
            .map_err(|error| format!("{host}: its address could not be looked up: {error}"))?,
    };
    if found.is_empty() {
        return Err(format!("{host}: it has no address"));
    }
    let place = |ip| Place::Tcp(SocketAddr::new(ip, host.port));
    Ok(found.into_iter().take(ADDRESSES_MAX).map(place).collect())
}

/// Connects and sends; where TLS was optional and its handshake failed, once more without.
async fn over_address(
    settings: &DeliverySettings,
    hop: &NextHop,
    host: &HostPort,
    address: Place,
    outgoing: &OutgoingMessage,
    content: &Sent<'_>,
) -> Result<(Link, Outcome), String> {
    let mut tls = hop.tls;
    loop {
        let mut link = open(settings, hop, host, address, tls, outgoing).await?;
        let outcome = content.over(&mut link).await;
        let Some(failure) = host_failure(&outcome) else { return Ok((link, outcome)) };
        let reason = format!("{}: {failure}", link.peer);
        let again = tls == ClientTls::IfOffered && link.handshake_failed;
        link.quit().await;
        if !again {
            return Err(reason);
        }
        tracing::warn!(%reason, "TLS failed; sending without it, as this next hop's policy allows");
        tls = ClientTls::Off;
    }
}

async fn open(
    settings: &DeliverySettings,
    hop: &NextHop,
    host: &HostPort,
    address: Place,
    tls: ClientTls,
    outgoing: &OutgoingMessage,
) -> Result<Link, String> {
    let peer = match address {
        Place::Tcp(address) => format!("{}[{}]:{}", host.host, address.ip(), address.port()),
        Place::Unix => host.host.clone(),
    };
    let mut stream = match timeout(settings.timeouts.connect, connected(host, address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("{peer}: {error}")),
        Err(_) => return Err(format!("{peer}: connecting timed out")),
    };
    let start = TlsStart {
        config: hop.tls_config.clone(),
        host: host.host.clone(),
        handshake_timeout: settings.timeouts.handshake,
    };
    if tls == ClientTls::Implicit {
        stream = start.handshake(stream).await.map_err(|error| format!("{peer}: TLS: {error}"))?;
    }
    let job = ClientJob {
        settings: Arc::new(client_settings(settings, hop, tls)),
        message: outgoing.clone(),
    };
    Ok(Link::new(stream, job, start, peer))
}

async fn connected(host: &HostPort, place: Place) -> std::io::Result<Box<dyn Stream>> {
    Ok(match place {
        Place::Tcp(address) => {
            let socket = TcpStream::connect(address).await?;
            // Commands are small and waited for.
            socket.set_nodelay(true)?;
            Box::new(socket)
        }
        Place::Unix => Box::new(UnixStream::connect(&host.host).await?),
    })
}

fn client_settings(settings: &DeliverySettings, hop: &NextHop, tls: ClientTls) -> ClientSettings {
    let timeouts = settings.timeouts;
    ClientSettings {
        helo: settings.hostname.clone(),
        lmtp: hop.lmtp,
        tls,
        login: hop.login.clone(),
        greeting_timeout: timeouts.greeting,
        command_timeout: timeouts.command,
        content_timeout: timeouts.content,
        end_timeout: timeouts.end,
        ..ClientSettings::default()
    }
}
