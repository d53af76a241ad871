//! What a server's answer means, before its body is read.

use std::time::{Duration, SystemTime};

use hyper::header::{
    CONTENT_ENCODING, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, LOCATION, RETRY_AFTER,
};
use hyper::{StatusCode, http::response::Parts};

use super::FetchError;
use super::address::Address;
use crate::control::api::{VALIDATOR_BYTES_MAX, Validators};

/// The longest that a server's wish to be left alone is heeded: a list that is not asked for in a
/// day had better be asked for again.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// What to do with an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The body is the feed.
    Content(Validators),
    Unchanged,
    Redirect(Address),
}

/// # Errors
/// It is none of these.
pub fn meaning(
    asked: &Address,
    conditional: bool,
    answer: &Parts,
    now: SystemTime,
) -> Result<Meaning, FetchError> {
    let host = asked.to_string();
    let status = answer.status;
    match status {
        StatusCode::OK => match header(&answer.headers, CONTENT_ENCODING) {
            Some(coding) if !coding.trim().eq_ignore_ascii_case("identity") => {
                Err(FetchError::Coded { host, coding: coding.to_owned() })
            }
            _ => Ok(Meaning::Content(validators(&answer.headers))),
        },
        StatusCode::NOT_MODIFIED if conditional => Ok(Meaning::Unchanged),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => match header(&answer.headers, LOCATION) {
            Some(location) => asked.redirected(location).map(Meaning::Redirect),
            None => Err(FetchError::Redirect { from: host, why: "it says not where to".into() }),
        },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let after = header(&answer.headers, RETRY_AFTER);
            let retry_after = after.and_then(|text| retry_after(text, now));
            Err(FetchError::Busy { host, status, retry_after })
        }
        _ => Err(FetchError::Status { host, status }),
    }
}

/// Seconds or a date (RFC 9110, section 10.2.3), within [`RETRY_AFTER_MAX`].
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let after = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has room for are a long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(after.min(RETRY_AFTER_MAX))
}

/// Longer ones than the edge keeps are as good as none.
fn validators(headers: &HeaderMap) -> Validators {
    let short = |name| {
        let value = header(headers, name)?.trim();
        (!value.is_empty() && value.len() <= VALIDATOR_BYTES_MAX).then(|| value.to_owned())
    };
    Validators { etag: short(ETAG), last_modified: short(LAST_MODIFIED) }
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use hyper::Response;

    use super::*;

    const NOW_S: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT

    fn judged(conditional: bool, status: u16, headers: &[(&str, &str)]) -> Result<Meaning, String> {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let answer = answer.body(()).unwrap().into_parts().0;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S);
        let asked = Address::parse("https://feeds.example/drop.txt").unwrap();
        meaning(&asked, conditional, &answer, now).map_err(|error| error.to_string())
    }

    #[test]
    fn content_comes_with_its_validators_and_uncoded() {
        let found = judged(false, 200, &[("etag", "W/\"a\""), ("last-modified", "Sun")]);
        let validators =
            Validators { etag: Some("W/\"a\"".into()), last_modified: Some("Sun".into()) };
        assert_eq!(found, Ok(Meaning::Content(validators)));
        let long = format!("\"{}\"", "x".repeat(VALIDATOR_BYTES_MAX));
        let found = judged(false, 200, &[("etag", &long), ("content-encoding", "identity")]);
        assert_eq!(found, Ok(Meaning::Content(Validators::default())));
        let coded = judged(false, 200, &[("content-encoding", "gzip")]).unwrap_err();
        assert_eq!(coded, "feeds.example sent it as gzip, which was not asked for");
    }

    #[test]
    fn only_a_question_with_a_condition_can_be_answered_unchanged() {
        assert_eq!(judged(true, 304, &[]), Ok(Meaning::Unchanged));
        assert_eq!(judged(false, 304, &[]).unwrap_err(), "feeds.example answered 304 Not Modified");
    }

    #[test]
    fn other_statuses_are_failures() {
        for status in [201, 204, 206, 300, 305, 400, 401, 403, 404, 410, 500, 502] {
            let error = judged(true, status, &[("location", "/x")]).unwrap_err();
            assert!(error.contains(&status.to_string()), "{error}");
        }
        assert!(judged(true, 302, &[]).unwrap_err().contains("not where to"));
        assert!(judged(true, 302, &[("location", "http://feeds.example/")]).is_err());
        for status in [301, 302, 303, 307, 308] {
            let led = judged(true, status, &[("location", "/x")]);
            let to = Address::parse("https://feeds.example/x").unwrap();
            assert_eq!(led, Ok(Meaning::Redirect(to)));
        }
    }

    #[test]
    fn a_busy_server_is_left_alone_for_as_long_as_it_asks_within_reason() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S);
        let after = |text| retry_after(text, now).map(|after| after.as_secs());
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(after("99999999999999999999999"), Some(86_400));
        assert_eq!(after("Sat, 06 Nov 2094 08:51:37 GMT"), Some(86_400));
        for nonsense in ["", "soon", "-1", "1.5"] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
        let busy = judged(true, 503, &[("retry-after", "7")]).unwrap_err();
        assert_eq!(
            busy,
            "feeds.example answered 503 Service Unavailable, to be asked again in 7 s"
        );
    }
}
