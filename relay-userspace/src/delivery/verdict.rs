//! From what the next hop said to what the queue records, DSN included.

use super::lane::{Context, Job};
use super::reach::Reached;
use crate::delivery::settings::Destination;
use crate::queue::{
    Attempt, Bounce, Content, Deferral, DueRecipient, Failure, LoadedMessage, NewMessage,
    NewRecipient, QueueId, Route, SenderReport, domain_of, header_length,
};
use relay_core::dsn::{self, Action, ORIGINAL_HEADERS_MAX, Original, Report, ReportedRecipient};
use relay_core::smtp::client::{self, FailureKind, RecipientStatus};
use relay_core::smtp::options::{MailOptions, RcptOptions, Returned};
use relay_core::smtp::reply::EnhancedCode;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

/// Largest message that is returned whole, in octets, where RET=FULL asks for it.
const RETURNED_MAX: u64 = 100 << 10;

/// What becomes of one recipient.
#[derive(Debug)]
enum Fate {
    /// `will_report`: the next hop was asked to notify the sender, and can.
    Delivered {
        will_report: bool,
    },
    Deferred {
        due: SystemTime,
    },
    Failed {
        status: EnhancedCode,
    },
}

/// One recipient's line in log, queue and DSN.
#[derive(Debug)]
struct Line {
    recipient: DueRecipient,
    fate: Fate,
    /// The next hop's reply, or what kept it from giving one.
    reason: String,
    /// The next hop's own words.
    reply: Option<String>,
}

/// An attempt ready to be recorded and logged.
#[derive(Debug)]
pub(super) struct Verdict {
    message: QueueId,
    at: SystemTime,
    peer: Option<String>,
    lines: Vec<Line>,
    report: Reporting,
}

#[derive(Debug)]
enum Reporting {
    None,
    Badmail,
    Bounce { id: QueueId, message: Box<NewMessage>, content: Vec<u8> },
}

/// A random number; it needs no secrecy.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Judges the attempt, and writes the DSN if one is due.
pub(super) async fn attempt(
    context: &Context,
    job: &Job,
    message: &LoadedMessage,
    reached: &Reached,
    now: SystemTime,
) -> Verdict {
    // One draw for all: recipients that are deferred together are tried together.
    let drawn = random();
    let judge = |(index, recipient): (usize, &DueRecipient)| {
        let retry = &context.settings.retry;
        let next = retry.next(recipient.attempts, message.received, now, drawn);
        line(recipient, reached, index, next)
    };
    let lines: Vec<Line> = job.recipients.iter().enumerate().map(judge).collect();
    let peer = match reached {
        Reached::Host { peer, .. } => Some(peer.clone()),
        Reached::Nobody { .. } => None,
    };
    let mut verdict =
        Verdict { message: job.message, at: now, peer, lines, report: Reporting::None };
    let has_failed = verdict.lines.iter().any(|line| matches!(line.fate, Fate::Failed { .. }));
    // RFC 5321 section 6.1: never a bounce of a bounce.
    if !message.reverse_path.is_empty() {
        verdict.report = bounce(context, message, &verdict, now);
    } else if has_failed {
        verdict.report = Reporting::Badmail;
    }
    verdict
}

impl Line {
    /// What the sender is told of it: of failures unless it asked not to be, of success where it
    /// asked and nobody else will say so (RFC 3461 section 5.2.2).
    fn news(&self) -> Option<(Action, EnhancedCode)> {
        let options = &self.recipient.options;
        match self.fate {
            Fate::Failed { status } if options.wants_failure() => Some((Action::Failed, status)),
            Fate::Delivered { will_report: false } if options.wants_success() => {
                Some((Action::Relayed, (2, 0, 0)))
            }
            _ => None,
        }
    }
}

/// `next` is when to try again if it comes to that; `None` when the message is too old.
fn line(
    recipient: &DueRecipient,
    reached: &Reached,
    index: usize,
    next: Option<SystemTime>,
) -> Line {
    let (permanent, reason, reply) = match reached {
        Reached::Nobody { reason, status } => (*status, reason.clone(), None),
        Reached::Host { outcome, .. } => match &outcome.recipients[index] {
            RecipientStatus::Delivered(response) => {
                let (recipient, reply) = (recipient.clone(), response.to_string());
                let reason = reply.clone();
                let fate = Fate::Delivered { will_report: outcome.capabilities.dsn };
                return Line { recipient, fate, reason, reply: Some(reply) };
            }
            RecipientStatus::Failed(failure) => (
                failure.is_permanent().then(|| status_of(failure)),
                failure.to_string(),
                failure.response().map(ToString::to_string),
            ),
        },
    };
    let (fate, reason) = match (permanent, next) {
        (Some(status), _) => (Fate::Failed { status }, reason),
        (None, Some(due)) => (Fate::Deferred { due }, reason),
        // RFC 3463 X.4.7: delivery time expired.
        (None, None) => {
            (Fate::Failed { status: (5, 4, 7) }, format!("given up; the last attempt: {reason}"))
        }
    };
    Line { recipient: recipient.clone(), fate, reason, reply }
}

/// The status of a permanent failure (RFC 3463): the server's own, or what comes closest.
fn status_of(failure: &client::Failure) -> EnhancedCode {
    match &failure.kind {
        FailureKind::Refused(response) => {
            response.enhanced.filter(|(class, ..)| *class == 5).unwrap_or((5, 0, 0))
        }
        FailureKind::TooLarge { .. } => (5, 3, 4),
        FailureKind::EightBitNotOffered | FailureKind::BinaryNotOffered => (5, 6, 3),
        // RFC 6531 section 3.5, RFC 8689 section 4.2.
        FailureKind::Utf8NotOffered => (5, 6, 7),
        FailureKind::RequireTlsNotOffered => (5, 7, 30),
        FailureKind::BadAddress => (5, 1, 3),
        _ => (5, 0, 0),
    }
}

fn bounce(
    context: &Context,
    message: &LoadedMessage,
    verdict: &Verdict,
    now: SystemTime,
) -> Reporting {
    let told: Vec<ReportedRecipient<'_>> = verdict
        .lines
        .iter()
        .filter_map(|line| {
            let (action, status) = line.news()?;
            Some(ReportedRecipient {
                address: &line.recipient.address,
                original: line.recipient.options.orcpt.as_ref(),
                action,
                status,
                reason: &line.reason,
                remote_mta: line.reply.as_ref().and(verdict.peer_name()),
                remote_reply: line.reply.as_deref(),
                attempted: now,
            })
        })
        .collect();
    if told.is_empty() {
        return Reporting::None;
    }
    let id = context.spool.allocate();
    let (queue_id, own_queue_id) = (message.id.to_string(), id.to_string());
    let is_whole = returns_whole(message) && told.iter().any(|it| it.action == Action::Failed);
    let returned = if is_whole {
        start_of(&message.content, message.size)
    } else {
        headers_of(&message.content)
    };
    let content = dsn::build(&Report {
        reporting_mta: &context.settings.hostname,
        queue_id: &queue_id,
        own_queue_id: &own_queue_id,
        sender: &message.reverse_path,
        arrived: message.received,
        now,
        envelope_id: message.options.envid.as_deref(),
        recipients: &told,
        original: if is_whole { Original::Whole(&returned) } else { Original::Headers(&returned) },
        seed: random(),
    });
    Reporting::Bounce { id, message: Box::new(envelope(context, message, &returned)), content }
}

/// RET=FULL, and nothing that forbids it: what was to be read in verified TLS alone is not sent
/// around in reports (RFC 8689 section 5).
fn returns_whole(message: &LoadedMessage) -> bool {
    message.options.ret == Some(Returned::Full)
        && message.size <= RETURNED_MAX
        && !message.binary
        && !message.options.require_tls
}

/// The DSN's envelope: from nobody, to the sender, on the way of any mail.
fn envelope(context: &Context, failed: &LoadedMessage, returned: &[u8]) -> NewMessage {
    let sender = failed.reverse_path.as_str();
    let inside = context.settings.destination(&domain_of(sender), Route::Relay);
    let route = match inside {
        Destination::Inside(_) => Route::Inbound,
        Destination::SmartHost | Destination::NoInsideHost => Route::Relay,
    };
    let (address, options) = (sender.to_owned(), RcptOptions::default());
    let recipient = NewRecipient { address, options, route, rule: "dsn".to_owned() };
    let utf8 = !sender.is_ascii() || failed.options.utf8 && !returned.is_ascii();
    let require_tls = failed.options.require_tls;
    NewMessage {
        options: MailOptions { utf8, require_tls, ..MailOptions::default() },
        binary: false,
        reverse_path: String::new(),
        recipients: vec![recipient],
        source: None,
        account: None,
        helo: context.settings.hostname.clone(),
        listener: "dsn".to_owned(),
    }
}

fn headers_of(content: &Content<std::fs::File>) -> Vec<u8> {
    let mut start = start_of(content, ORIGINAL_HEADERS_MAX as u64);
    start.truncate(header_length(&start));
    start
}

/// The first octets of a message, at most so many.
fn start_of(content: &Content<std::fs::File>, length_max: u64) -> Vec<u8> {
    let length_max = usize::try_from(length_max).unwrap_or(usize::MAX);
    match content {
        Content::Inline(bytes) => bytes[..bytes.len().min(length_max)].to_vec(),
        Content::File(file) => {
            let mut start = vec![0; length_max];
            // A DSN without the original is better than none.
            let length = file.read_at(&mut start, 0).unwrap_or(0);
            start.truncate(length);
            start
        }
    }
}

impl Verdict {
    pub(super) fn message(&self) -> QueueId {
        self.message
    }

    /// `host[address]:port` without what is behind the name.
    fn peer_name(&self) -> Option<&str> {
        self.peer.as_deref().and_then(|peer| peer.split('[').next())
    }

    /// What the queue is to record.
    pub(super) fn attempt(&self) -> Attempt {
        let mut attempt = Attempt {
            message: self.message,
            at: self.at,
            delivered: Vec::new(),
            deferred: Vec::new(),
            failed: Vec::new(),
            report: match &self.report {
                Reporting::None => SenderReport::None,
                Reporting::Badmail => SenderReport::Badmail,
                Reporting::Bounce { id, message, content } => {
                    let (id, message, content) = (*id, NewMessage::clone(message), content.clone());
                    let told = self.lines.iter().filter(|line| line.news().is_some());
                    let about = told.map(|line| line.recipient.ordinal).collect();
                    SenderReport::Bounce(Box::new(Bounce { id, about, message, content }))
                }
            },
        };
        for Line { recipient, fate, reason, .. } in &self.lines {
            let ordinal = recipient.ordinal;
            match fate {
                Fate::Delivered { .. } => attempt.delivered.push(ordinal),
                Fate::Deferred { due } => {
                    attempt.deferred.push(Deferral { ordinal, due: *due, error: reason.clone() });
                }
                Fate::Failed { .. } => {
                    attempt.failed.push(Failure { ordinal, reason: reason.clone() });
                }
            }
        }
        attempt
    }

    /// One event for each recipient, once the attempt is recorded.
    pub(super) fn log(&self) {
        let host = self.peer.as_deref().unwrap_or("none");
        for line in &self.lines {
            let Line { recipient, fate, reason, .. } = line;
            let outcome = match (fate, &self.report) {
                (Fate::Delivered { .. }, _) => "delivered",
                (Fate::Deferred { .. }, _) => "deferred",
                (Fate::Failed { .. }, Reporting::Badmail) => "badmail",
                (Fate::Failed { .. }, _) if line.news().is_some() => "bounced",
                // NOTIFY asked for silence.
                (Fate::Failed { .. }, _) => "discarded",
            };
            let dsn = match &self.report {
                Reporting::Bounce { id, .. } if line.news().is_some() => Some(id.to_string()),
                _ => None,
            };
            tracing::info!(
                queue_id = %self.message,
                recipient = recipient.address,
                host,
                outcome,
                reply = reason,
                rule = recipient.rule,
                attempts = recipient.attempts + 1,
                dsn,
                "delivery attempt"
            );
        }
    }
}
