//! Delivery status notifications: the message that tells a sender which recipients did not get
//! theirs (RFC 3464, in the multipart/report of RFC 6522).
//!
//! Pure: times, ids and the boundary's seed are arguments. Whether a DSN may be sent at all (never
//! for a message with a null reverse-path, RFC 5321 section 6.1) is the caller's to decide.

mod text;

use crate::smtp::reply::EnhancedCode;
use std::time::SystemTime;

use crate::smtp::rfc5322_date;
use text::{field, headers_of_original, paragraph};

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
    /// At least one.
    pub recipients: &'a [FailedRecipient<'a>],
    /// The failed message's header section.
    pub original_headers: &'a [u8],
    /// A random number for the boundary.
    pub seed: u64,
}

/// A recipient that did not get the message.
#[derive(Debug, Clone, Copy)]
pub struct FailedRecipient<'a> {
    /// As it stood in RCPT, without angle brackets.
    pub address: &'a str,
    /// RFC 3463; class 5.
    pub status: EnhancedCode,
    /// Why, for people.
    pub reason: &'a str,
    /// The host that refused, if any did.
    pub remote_mta: Option<&'a str>,
    /// Its reply, on one line.
    pub remote_reply: Option<&'a str>,
    /// When it was last tried.
    pub attempted: SystemTime,
}

/// The whole message: CRLF lines of at most 998 octets, 8-bit only where the original's headers
/// are.
pub fn build(report: &Report<'_>) -> Vec<u8> {
    let (mut human, mut status) = (Vec::new(), Vec::new());
    human_part(&mut human, report);
    status_part(&mut status, report);
    let returned = headers_of_original(report.original_headers);
    let encoding = if returned.is_ascii() { "7bit" } else { "8bit" };
    let boundary = boundary(report, &[&human, &status, &returned]);

    let mut out = Vec::with_capacity(1024 + human.len() + status.len() + returned.len());
    message_headers(&mut out, report, &boundary, encoding);
    let original =
        format!("Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: {encoding}");
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
    field(out, "To", &format!("<{}>", report.sender));
    field(out, "Subject", "Undelivered Mail Returned to Sender");
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
    paragraph(
        out,
        &format!(
            "Your message of {arrived} (queue id {}) could not be delivered to the recipients \
             below. It will not be tried again.",
            report.queue_id
        ),
    );
    for recipient in report.recipients {
        let host = recipient.remote_mta.map(|host| format!(" ({host})")).unwrap_or_default();
        paragraph(out, &format!("<{}>{host}: {}", recipient.address, recipient.reason));
    }
}

/// RFC 3464 section 2: a group for the message, then one for each recipient.
fn status_part(out: &mut Vec<u8>, report: &Report<'_>) {
    field(out, "Reporting-MTA", &format!("dns; {}", report.reporting_mta));
    field(out, "X-Postern-Queue-ID", report.queue_id);
    field(out, "Arrival-Date", &rfc5322_date(report.arrived));
    for recipient in report.recipients {
        let (class, subject, detail) = recipient.status;
        out.extend_from_slice(b"\r\n");
        field(out, "Final-Recipient", &format!("rfc822; {}", recipient.address));
        field(out, "Action", "failed");
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
