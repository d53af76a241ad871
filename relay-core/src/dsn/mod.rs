//! Delivery status notifications: the message that tells a sender which recipients did not get
//! theirs, and, where that was asked for, which did (RFC 3464, in the multipart/report of RFC 6522).
//!
//! Pure: times, ids and the boundary's seed are arguments. Whether a DSN may be sent at all (never
//! for a message with a null reverse-path, RFC 5321 section 6.1) is the caller's to decide.

mod text;

use crate::smtp::options::OriginalRecipient;
use crate::smtp::reply::EnhancedCode;
use crate::smtp::xtext;
use std::time::SystemTime;

use crate::smtp::rfc5322_date;
use text::{address_field, field, headers_of_original, is_fit, paragraph};

/// Octets of the original's header section that are returned.
pub const ORIGINAL_HEADERS_MAX: usize = 32 << 10;

/// What is reported.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// This host's name.
    pub reporting_mta: &'a str,
    /// The failed message's queue id.
    pub queue_id: &'a str,
    /// The DSN's own queue id, from which its Message-ID is made.
    pub own_queue_id: &'a str,
    /// The failed message's reverse-path, not null, without angle brackets.
    pub sender: &'a str,
    /// When the failed message came in.
    pub arrived: SystemTime,
    /// When the DSN is made.
    pub now: SystemTime,
    /// ENVID of the message (RFC 3461 section 4.4).
    pub envelope_id: Option<&'a str>,
    /// At least one.
    pub recipients: &'a [ReportedRecipient<'a>],
    /// What is returned of the message.
    pub original: Original<'a>,
    /// A random number for the boundary.
    pub seed: u64,
}

/// What is returned of a message (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy)]
pub enum Original<'a> {
    /// Its header section.
    Headers(&'a [u8]),
    /// The whole of it. Where a line of it could not stand in a report, its header section.
    Whole(&'a [u8]),
}

/// What became of a recipient (RFC 3464 section 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The message was not delivered, and never will be.
    Failed,
    /// It was handed to a host that sends no notifications: no more will be heard of it.
    Relayed,
}

/// A recipient that the sender is told of.
#[derive(Debug, Clone, Copy)]
pub struct ReportedRecipient<'a> {
    /// As it stood in RCPT, without angle brackets.
    pub address: &'a str,
    /// ORCPT: whom the sender wrote to.
    pub original: Option<&'a OriginalRecipient>,
    /// What became of it.
    pub action: Action,
    /// RFC 3463; of class 5 when it failed, otherwise of class 2.
    pub status: EnhancedCode,
    /// Why, for people.
    pub reason: &'a str,
    /// The host that said so, if any did.
    pub remote_mta: Option<&'a str>,
    /// Its reply, on one line.
    pub remote_reply: Option<&'a str>,
    /// When it was last tried.
    pub attempted: SystemTime,
}

/// The whole message: CRLF lines of at most 998 octets, 8-bit only where what is returned is, or
/// the sender's address.
pub fn build(report: &Report<'_>) -> Vec<u8> {
    let (mut human, mut status) = (Vec::new(), Vec::new());
    human_part(&mut human, report);
    status_part(&mut status, report);
    let (kind, returned) = match report.original {
        Original::Whole(message) if is_fit(message) => ("message/rfc822", message.to_vec()),
        Original::Whole(message) => ("text/rfc822-headers", headers_of_original(message)),
        Original::Headers(headers) => ("text/rfc822-headers", headers_of_original(headers)),
    };
    let encoding = if returned.is_ascii() { "7bit" } else { "8bit" };
    let boundary = boundary(report, &[&human, &status, &returned]);

    let mut out = Vec::with_capacity(1024 + human.len() + status.len() + returned.len());
    message_headers(&mut out, report, &boundary, encoding);
    let original = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}");
    for (headers, content) in [
        ("Content-Type: text/plain; charset=us-ascii", &human),
        ("Content-Type: message/delivery-status", &status),
        (&original, &returned),
    ] {
        out.extend_from_slice(format!("\r\n--{boundary}\r\n{headers}\r\n\r\n").as_bytes());
        out.extend_from_slice(content);
    }
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    out
}

fn message_headers(out: &mut Vec<u8>, report: &Report<'_>, boundary: &str, encoding: &str) {
    let host = report.reporting_mta;
    field(out, "Date", &rfc5322_date(report.now));
    field(out, "From", &format!("Mail Delivery System <MAILER-DAEMON@{host}>"));
    address_field(out, "To", report.sender);
    let failed = report.recipients.iter().any(|recipient| recipient.action == Action::Failed);
    let subject = if failed {
        "Undelivered Mail Returned to Sender"
    } else {
        "Successful Mail Delivery Report"
    };
    field(out, "Subject", subject);
    field(out, "Message-ID", &format!("<{}@{host}>", report.own_queue_id));
    // RFC 3834 section 5: keeps vacation programs and lists from answering.
    field(out, "Auto-Submitted", "auto-replied");
    field(out, "MIME-Version", "1.0");
    // RFC 6522 section 3.
    field(
        out,
        "Content-Type",
        &format!("multipart/report; report-type=delivery-status; boundary=\"{boundary}\""),
    );
    // RFC 2045 section 6.4: a multipart is 8bit when a part of it is.
    field(out, "Content-Transfer-Encoding", encoding);
}

fn human_part(out: &mut Vec<u8>, report: &Report<'_>) {
    paragraph(out, &format!("This is the mail system at {}.", report.reporting_mta));
    let arrived = rfc5322_date(report.arrived);
    for (action, news) in [
        (
            Action::Failed,
            "could not be delivered to the recipients below. It will not be tried again.",
        ),
        (
            Action::Relayed,
            "was handed on for the recipients below, to hosts that send no reports of delivery. \
             You will hear no more of it unless it fails.",
        ),
    ] {
        let with = |recipient: &&ReportedRecipient<'_>| recipient.action == action;
        let mut recipients = report.recipients.iter().filter(with).peekable();
        if recipients.peek().is_some() {
            let id = report.queue_id;
            paragraph(out, &format!("Your message of {arrived} (queue id {id}) {news}"));
        }
        for recipient in recipients {
            let host = recipient.remote_mta.map(|host| format!(" ({host})")).unwrap_or_default();
            let address = in_ascii(recipient.address);
            paragraph(out, &format!("<{address}>{host}: {}", recipient.reason));
        }
    }
}

/// An address for a field that is ASCII (RFC 6533 section 3).
fn in_ascii(address: &str) -> String {
    if address.is_ascii() { address.to_owned() } else { xtext::encode_unicode(address) }
}

/// RFC 3464 section 2: a group for the message, then one for each recipient.
fn status_part(out: &mut Vec<u8>, report: &Report<'_>) {
    field(out, "Reporting-MTA", &format!("dns; {}", report.reporting_mta));
    if let Some(id) = report.envelope_id {
        field(out, "Original-Envelope-Id", id);
    }
    field(out, "X-Postern-Queue-ID", report.queue_id);
    field(out, "Arrival-Date", &rfc5322_date(report.arrived));
    for recipient in report.recipients {
        let (class, subject, detail) = recipient.status;
        out.extend_from_slice(b"\r\n");
        if let Some(original) = recipient.original {
            let address = in_ascii(original.address());
            field(out, "Original-Recipient", &format!("{}; {address}", original.kind()));
        }
        let kind = if recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
        let address = in_ascii(recipient.address);
        field(out, "Final-Recipient", &format!("{kind}; {address}"));
        field(
            out,
            "Action",
            match recipient.action {
                Action::Failed => "failed",
                Action::Relayed => "relayed",
            },
        );
        field(out, "Status", &format!("{class}.{subject}.{detail}"));
        if let Some(host) = recipient.remote_mta {
            field(out, "Remote-MTA", &format!("dns; {host}"));
        }
        if let Some(reply) = recipient.remote_reply {
            field(out, "Diagnostic-Code", &format!("smtp; {reply}"));
        }
        field(out, "Last-Attempt-Date", &rfc5322_date(recipient.attempted));
    }
}

/// A boundary that begins no line of any part (RFC 2046 section 5.1.1).
fn boundary(report: &Report<'_>, parts: &[&[u8]]) -> String {
    let mut seed = report.seed;
    loop {
        // `=_` stands in neither base64 nor quoted-printable.
        let boundary = format!("=_{}_{seed:016x}", report.own_queue_id);
        let line = format!("--{boundary}");
        let mut lines = parts.iter().flat_map(|part| part.split(|byte| *byte == b'\n'));
        if !lines.any(|text| text.starts_with(line.as_bytes())) {
            return boundary;
        }
        // Ends: there are fewer lines than seeds.
        seed = seed.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
