use super::*;
use proptest::prelude::*;
use std::time::{Duration, UNIX_EPOCH};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn recipient(address: &str) -> ReportedRecipient<'_> {
    ReportedRecipient {
        address,
        original: None,
        action: Action::Failed,
        status: (5, 1, 1),
        reason: "550 5.1.1 no such user (in reply to RCPT)",
        remote_mta: Some("mx.example.net"),
        remote_reply: Some("550 5.1.1 no such user"),
        attempted: at(1_735_689_599),
    }
}

fn report<'a>(recipients: &'a [ReportedRecipient<'a>], headers: &'a [u8]) -> Report<'a> {
    Report {
        reporting_mta: "gate.example.org",
        queue_id: "0AAAAAAAAAAAA",
        own_queue_id: "0BBBBBBBBBBBB",
        sender: "alice@example.com",
        arrived: at(951_782_400),
        now: at(1_735_689_600),
        recipients,
        envelope_id: None,
        original: Original::Headers(headers),
        seed: 0xfeed,
    }
}

#[test]
fn a_report_reads_as_rfc_3464_has_it() {
    let recipients = [recipient("bob@example.net")];
    let built = build(&report(&recipients, b"Subject: hello\r\nFrom: <alice@example.com>\r\n"));
    let expected = "\
Date: Wed, 01 Jan 2025 00:00:00 +0000
From: Mail Delivery System <MAILER-DAEMON@gate.example.org>
To: <alice@example.com>
Subject: Undelivered Mail Returned to Sender
Message-ID: <0BBBBBBBBBBBB@gate.example.org>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
 boundary=\"=_0BBBBBBBBBBBB_000000000000feed\"
Content-Transfer-Encoding: 7bit

--=_0BBBBBBBBBBBB_000000000000feed
Content-Type: text/plain; charset=us-ascii

This is the mail system at gate.example.org.

Your message of Tue, 29 Feb 2000 00:00:00 +0000 (queue id 0AAAAAAAAAAAA)
could not be delivered to the recipients below. It will not be tried again.

<bob@example.net> (mx.example.net): 550 5.1.1 no such user (in reply to RCPT)


--=_0BBBBBBBBBBBB_000000000000feed
Content-Type: message/delivery-status

Reporting-MTA: dns; gate.example.org
X-Postern-Queue-ID: 0AAAAAAAAAAAA
Arrival-Date: Tue, 29 Feb 2000 00:00:00 +0000

Final-Recipient: rfc822; bob@example.net
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 550 5.1.1 no such user
Last-Attempt-Date: Tue, 31 Dec 2024 23:59:59 +0000

--=_0BBBBBBBBBBBB_000000000000feed
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: 7bit

Subject: hello
From: <alice@example.com>

--=_0BBBBBBBBBBBB_000000000000feed--
";
    assert_eq!(String::from_utf8(built).unwrap(), expected.replace('\n', "\r\n"));
}

/// RFC 3461 section 6.3, RFC 6533: what the sender asked by, and addresses beyond ASCII.
#[test]
fn options_of_the_message_are_told() {
    let original = OriginalRecipient::parse("rfc822;list+2Ba@example.net").unwrap();
    let relayed = ReportedRecipient {
        original: Some(&original),
        action: Action::Relayed,
        status: (2, 0, 0),
        reason: "250 2.0.0 Ok",
        remote_reply: Some("250 2.0.0 Ok"),
        ..recipient("jürgen@example.net")
    };
    let recipients = [relayed];
    let whole = b"Subject: x\r\n\r\nthe body\r\n";
    let built = build(&Report {
        envelope_id: Some("QQ 1"),
        original: Original::Whole(whole),
        sender: "åsa@example.com",
        ..report(&recipients, b"")
    });
    let text = String::from_utf8(built).unwrap();
    for part in [
        "To: <åsa@example.com>\r\n",
        "Subject: Successful Mail Delivery Report\r\n",
        "\r\n<j\\x{FC}rgen@example.net> (mx.example.net): 250 2.0.0 Ok\r\n",
        "Original-Envelope-Id: QQ 1\r\n",
        "Original-Recipient: rfc822; list+a@example.net\r\n",
        "Final-Recipient: utf-8; j\\x{FC}rgen@example.net\r\nAction: relayed\r\nStatus: 2.0.0\r\n",
        "Content-Type: message/rfc822\r\n",
        "\r\n\r\nSubject: x\r\n\r\nthe body\r\n\r\n--",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    for unfit in ["Subject: x\r\n\r\na\nb\r\n", "Subject: x\r\n\r\na\0b\r\n"] {
        let original = Original::Whole(unfit.as_bytes());
        let built = build(&Report { original, ..report(&recipients, b"") });
        let text = String::from_utf8(built).unwrap();
        assert!(text.contains("text/rfc822-headers") && text.contains("\r\nSubject: x\r\n\r\n--"));
    }
}

#[test]
fn eight_bit_is_declared_only_when_returned() {
    let recipients = [recipient("bob@example.net")];
    let built = build(&report(&recipients, "Subject: grüße\r\n".as_bytes()));
    let text = String::from_utf8(built).unwrap();
    assert_eq!(text.matches("Content-Transfer-Encoding: 8bit\r\n").count(), 2);
    assert!(text.contains("Subject: grüße\r\n"));
}

#[test]
fn the_boundary_stands_in_nothing_that_is_returned() {
    let recipients = [recipient("bob@example.net")];
    let headers = b"X: 1\r\n--=_0BBBBBBBBBBBB_000000000000feed--\r\n";
    let text = String::from_utf8(build(&report(&recipients, headers))).unwrap();
    assert!(text.contains("boundary=\"=_0BBBBBBBBBBBB_000000000000feee\""));
}

proptest! {
    /// Whatever hosts say and senders send: lines are CRLF lines within the limit, fields cannot
    /// be forged, and there are three parts.
    #[test]
    fn nothing_breaks_out(
        address in ".{0,400}", reply in "(?s).{0,3000}",
        headers in proptest::collection::vec(any::<u8>(), 0..5000),
    ) {
        let odd = ReportedRecipient {
            address: &address,
            reason: &reply,
            remote_mta: Some(&address),
            remote_reply: Some(&reply),
            ..recipient("x")
        };
        let recipients = [odd, odd];
        let built = build(&report(&recipients, &headers));
        prop_assert!(built.ends_with(b"--\r\n"));
        for line in built[..built.len() - 2].split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            prop_assert!(line.len() <= 998);
            prop_assert!(!line.contains(&b'\r') && !line.contains(&0));
        }
        let bare = built.iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(built.windows(2).filter(|two| two == b"\r\n").count(), bare);
        let text = String::from_utf8_lossy(&built);
        prop_assert_eq!(text.matches("\r\n--=_0BBBBBBBBBBBB_").count(), 4);
        prop_assert_eq!(text.matches("\r\nAction: failed\r\n").count(), 2);
        prop_assert_eq!(text.matches("\r\nFinal-Recipient:").count(), 2);
    }
}
