//! One connection: bytes from the socket into the session, effects out of it.
//!
//! The session knows the protocol and does no I/O; this loop does the I/O and knows no protocol.
//! What the session asks, [`Questions`] answers; or a script, in the tests.

mod answers;
mod pregreet;
mod proxied;
mod reading;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use relay_core::smtp::{
    envelope::TlsInfo,
    session::{Answer, Effect, Session},
};
use tokio::{
    io::AsyncWriteExt,
    time::{timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken};

use self::{answers::Answers, reading::read_once};
use super::{
    accepting::{Arrival, MESSAGES_END_WITHIN},
    door::{Guest, Socket},
    questions::Questions,
    source::Source,
    state::{Listener, Shared},
};
use crate::tls;

/// Replies are sent together until this many bytes have gathered.
const WRITE_BYTES: usize = 16 * 1024;
/// Room for replies that a session keeps while it waits.
const WRITE_BYTES_KEPT: usize = 1024;
/// What a client goes on sending after its message was cut off is read away for so long.
const READ_AWAY_WITHIN: Duration = Duration::from_secs(5);
/// A client that does not read its replies is cut off after this long.
const WRITE_WITHIN: Duration = Duration::from_secs(60);

type Tls = Box<TlsStream<Socket>>;
type Stream = Either<Socket, Tls>;

/// Serves one client to the end of its connection.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    arrival: Arrival,
    stop: CancellationToken,
) {
    // Replies are gathered here already; waiting for more to send would only delay them.
    if let Either::Left(stream) = &arrival.guest.stream
        && let Err(error) = stream.set_nodelay(true)
    {
        tracing::debug!(source = %arrival.guest.peer.ip(), %error, "setting TCP_NODELAY");
    }
    let named = tokio::select! {
        named = proxied::source(&shared, &listener, arrival) => named,
        () = stop.cancelled() => None,
    };
    let Some((arrival, named)) = named else { return };
    let Arrival { guest: Guest { stream, peer, local, user }, ticket } = arrival;
    shared.counters.connections.add();
    let mut source = Source::new(&shared, &listener, peer, local, named);
    if let Some(uid) = user {
        source.is_user(uid);
    }
    tracing::info!(
        source = %source.address, port = peer.port(), uid = user, listener = listener.name, "connect"
    );
    let started = Instant::now();
    let mut questions = Questions::new(shared, Arc::clone(&listener), source, ticket);
    let begun = if listener.implicit_tls {
        // A handshake is dear, and before it nobody could read a reply.
        if questions.at_connect().await.is_some() {
            return;
        }
        tokio::select! {
            begun = handshake(&questions, stream) => begun,
            () = stop.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
        .map(|(stream, info)| (Either::Right(stream), Some(info)))
    } else {
        Ok((Either::Left(stream), None))
    };
    let (stream, tls) = match begun {
        Ok((stream, tls)) => (stream, tls),
        Err(error) => {
            let source = questions.source.address;
            tracing::info!(%source, port = peer.port(), %error, "disconnect");
            return;
        }
    };
    let mut connection = Connection {
        stream: Some(stream),
        session: Session::new(Arc::clone(&listener.session), tls, started),
        replies: Vec::new(),
        questions,
        ends_at: None,
        moved: started.into(),
    };
    let outcome = connection.run(&stop).await;
    let Questions { source, accepted, refused, .. } = &connection.questions;
    tracing::info!(
        source = %source.address, port = peer.port(), accepted, refused,
        account = connection.session.account(), tls = connection.session.tls().is_some(),
        duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), error = outcome.err().map(tracing::field::display),
        "disconnect"
    );
}

#[derive(Debug)]
struct Connection<A> {
    /// `None` only during a TLS handshake, and after one that failed.
    stream: Option<Stream>,
    session: Session,
    replies: Vec<u8>,
    questions: A,
    /// Then the message that is under way is cut off: the relay stops.
    ends_at: Option<tokio::time::Instant>,
    /// When the session last had something to do: octets that make no command are nothing.
    moved: tokio::time::Instant,
}

impl Connection<Questions> {
    async fn run(&mut self, stop: &CancellationToken) -> io::Result<()> {
        self.session.permit(self.questions.upstream());
        match self.questions.at_connect().await {
            Some(reply) => self.session.turn_away(reply),
            None => {
                let early = self.early_talk(stop).await?;
                self.session.greet(Instant::now());
                self.session.push(&early, Instant::now());
            }
        }
        self.converse(stop).await
    }
}

impl<A: Answers> Connection<A> {
    /// From the banner to the end.
    async fn converse(&mut self, stop: &CancellationToken) -> io::Result<()> {
        loop {
            self.do_effects().await?;
            self.flush().await?;
            if self.session.is_closed() {
                return self.close().await;
            }
            self.read(stop).await?;
        }
    }

    /// Does what the session wants until it wants to read.
    async fn do_effects(&mut self) -> io::Result<()> {
        while let Some(effect) = self.session.next_effect(Instant::now()) {
            self.moved = tokio::time::Instant::now();
            match effect {
                Effect::Reply(reply) => {
                    reply.encode(&mut self.replies);
                    if self.replies.len() > WRITE_BYTES {
                        self.flush().await?;
                    }
                }
                Effect::StartTls => self.start_tls().await?,
                Effect::Close => {}
                effect => {
                    if let Some(answer) = self.questions.answer(effect, &self.session).await {
                        self.session.answer(answer, Instant::now());
                    }
                }
            }
        }
        Ok(())
    }

    async fn read(&mut self, stop: &CancellationToken) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let deadline = self.session.deadline().into();
        let deadline = self.ends_at.map_or(deadline, |ends_at| ends_at.min(deadline));
        let authenticated = self.session.account().is_some();
        let session = &mut self.session;
        let read = read_once(stream, |bytes| match bytes {
            [] => session.peer_closed(),
            bytes => session.push(bytes, Instant::now()),
        });
        tokio::select! {
            read = timeout_at(deadline, read) => match read {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.session.peer_closed();
                    // What was under way is dropped before the connection is.
                    self.do_effects().await?;
                    return Err(error);
                }
                Err(_) => self.session.timed_out(Instant::now()),
            },
            () = stop.cancelled(), if self.ends_at.is_none() => self.shut_down(),
            () = self.questions.outstayed(self.moved, authenticated) => {
                self.session.timed_out(Instant::now());
            }
        }
        Ok(())
    }

    fn shut_down(&mut self) {
        self.ends_at = Some(tokio::time::Instant::now() + MESSAGES_END_WITHIN);
        self.session.shut_down();
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        let write = async {
            stream.write_all(&self.replies).await?;
            stream.flush().await
        };
        timeout(WRITE_WITHIN, write)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.replies.clear();
        self.replies.shrink_to(WRITE_BYTES_KEPT);
        Ok(())
    }

    /// The handshake, after the 220 has gone out. When it fails there is no way back to plain
    /// text: the connection ends (RFC 3207, section 4.1).
    async fn start_tls(&mut self) -> io::Result<()> {
        self.flush().await?;
        let Some(Either::Left(stream)) = self.stream.take() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let (stream, info) = match handshake(&self.questions, stream).await {
            Ok(began) => began,
            Err(error) => {
                self.session.peer_closed();
                return Err(error);
            }
        };
        self.stream = Some(Either::Right(stream));
        self.session.answer(Answer::TlsStarted(info), Instant::now());
        Ok(())
    }

    async fn close(&mut self) -> io::Result<()> {
        match &mut self.stream {
            // A client that has gone needs no farewell.
            Some(stream) => {
                match timeout(WRITE_WITHIN, stream.shutdown()).await {
                    Ok(Err(error)) if error.kind() != io::ErrorKind::NotConnected => {
                        return Err(error);
                    }
                    _ => {}
                }
                if self.session.breaks_in() {
                    // With octets unread the system would end the connection by a reset, which
                    // takes the reply along (RFC 1122 section 4.2.2.13).
                    let rest = Box::pin(async {
                        while matches!(read_once(stream, <[u8]>::len).await, Ok(1..)) {}
                    });
                    let _or_too_much_of_it = timeout(READ_AWAY_WITHIN, rest).await;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The server's part of a TLS handshake, counted however it ends.
async fn handshake(who: &impl Answers, stream: Socket) -> io::Result<(Tls, TlsInfo)> {
    let accepted = TlsAcceptor::from(Arc::clone(who.tls())).accept(stream);
    let since = tokio::time::Instant::now();
    // Apart from the session's task, which outlives it by far.
    let handshake = Box::pin(async {
        tokio::select! {
            handshake = timeout(who.handshake_within(), accepted) => handshake,
            () = who.outstayed(since, false) => Ok(Err(io::ErrorKind::TimedOut.into())),
        }
    });
    let stream = handshake.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    who.handshake_ended(stream.is_ok());
    let stream =
        stream.map_err(|error| io::Error::new(error.kind(), format!("TLS handshake: {error}")))?;
    let Some(negotiated) = tls::negotiated(stream.get_ref().1) else {
        return Err(io::Error::other("a TLS handshake that negotiated nothing"));
    };
    let info = TlsInfo { version: negotiated.version.to_owned(), cipher: negotiated.cipher };
    Ok((Box::new(stream), info))
}

#[cfg(test)]
mod tests;
