//! Fetching from a real https server over real DNS, both on loopback.

mod course;
mod edge;
mod server;

use std::time::Duration;

use tokio::io::AsyncReadExt;

use self::server::*;
use super::body::Pace;
use super::*;
use crate::dns::test_server::Behaviour;

const LIST: &[u8] = b"192.0.2.0/24\n198.51.100.7\n";

async fn text_of(fetched: Fetched) -> Vec<u8> {
    let Fetched::Content(mut content) = fetched else { panic!("unchanged") };
    let mut text = Vec::new();
    content.file.read_to_end(&mut text).await.unwrap();
    assert_eq!(text.len() as u64, content.bytes);
    text
}

/// The sentence with which the fetch of this answer failed.
async fn refused(then: Then) -> String {
    let lab = Lab::new().await;
    let https = lab.serve(move |_| then.clone()).await;
    let error = lab.fetcher.fetch(&lab.wanted(HOST, https.address.port())).await.unwrap_err();
    assert_eq!(lab.left_behind(), 0);
    let text = error.to_string();
    assert!(!text.contains("secret"), "{text}");
    text
}

#[tokio::test]
async fn content_comes_whole_with_its_validators_and_is_asked_for_with_them() {
    let lab = Lab::new().await;
    let https = lab
        .serve(|request| {
            if request.contains("if-none-match: \"1\"\r\n") {
                Then::Say(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec())
            } else {
                let date = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT";
                answer("200 OK", &["etag: \"1\"", date], LIST)
            }
        })
        .await;
    let port = https.address.port();
    let mut wanted = lab.wanted(HOST, port);
    let fetched = lab.fetcher.fetch(&wanted).await.unwrap();
    let Fetched::Content(content) = &fetched else { panic!("unchanged") };
    wanted.validators = content.validators.clone();
    assert_eq!(lab.left_behind(), 0);
    assert_eq!(text_of(fetched).await, LIST);
    assert!(matches!(lab.fetcher.fetch(&wanted).await.unwrap(), Fetched::Unchanged));
    let [first, second] = &https.requests()[..] else { panic!("not two requests") };
    assert!(first.starts_with("GET /drop.txt?key=secret HTTP/1.1\r\n"), "{first}");
    let host = format!("host: {HOST}:{port}\r\n");
    for header in [&host, "accept-encoding: identity\r\n", "user-agent: postern/"] {
        assert!(first.contains(header), "{first}");
    }
    assert!(!first.contains("if-"), "{first}");
    assert!(second.contains("if-modified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), "{second}");
}

#[tokio::test]
async fn redirects_are_followed_three_times_and_no_further() {
    let lab = Lab::new().await;
    lab.names.set("other.example", Behaviour::a(&["127.0.0.1"], 60));
    let https = lab
        .serve(|request| {
            let left: u32 = request[5..6].parse().unwrap();
            match left {
                0 => answer("200 OK", &[], LIST),
                left => answer("302 Found", &[&format!("location: /{}", left - 1)], b"moved"),
            }
        })
        .await;
    let mut wanted = lab.wanted(HOST, https.address.port());
    let mut led = async |hops: u32| {
        wanted.address = wanted.address.redirected(&format!("/{hops}")).unwrap();
        lab.fetcher.fetch(&wanted).await
    };
    assert_eq!(text_of(led(3).await.unwrap()).await, LIST);
    assert!(matches!(led(4).await, Err(FetchError::Redirects(3))));
}

#[tokio::test]
async fn a_redirect_to_plain_http_is_refused() {
    let then = answer("301 Moved", &["location: http://feeds.example/drop.txt"], b"");
    assert_eq!(
        refused(then).await.split_once(' ').unwrap().1,
        "redirects: not to an https:// address"
    );
}

#[tokio::test]
async fn a_redirect_inside_is_refused_by_literal_and_by_name_unless_it_comes_from_inside() {
    let mut lab = Lab::new().await;
    lab.names.set("other.example", Behaviour::a(&["127.0.0.1", "127.0.0.2"], 60));
    let inner = Https::start("127.0.0.2:0", &lab.pems, |_| answer("200 OK", &[], LIST)).await;
    let port = inner.address.port();
    let https = lab
        .serve(move |request| {
            let host = if request.contains("GET /name") { "other.example" } else { "127.0.0.2" };
            answer("302 Found", &[&format!("location: https://{host}:{port}/")], b"")
        })
        .await;
    let mut wanted = lab.wanted(HOST, https.address.port());
    lab.fetcher.is_inside = only_two_is_inside;
    for path in ["/literal", "/name"] {
        wanted.address = wanted.address.redirected(path).unwrap();
        let error = lab.fetcher.fetch(&wanted).await.unwrap_err();
        assert!(matches!(error, FetchError::Inside { .. }), "{error}");
        assert!(inner.requests().is_empty());
    }
    // On 127.0.0.1 the configured server itself is inside.
    lab.fetcher.is_inside = address::is_inside;
    wanted.address = wanted.address.redirected("/name").unwrap();
    assert_eq!(text_of(lab.fetcher.fetch(&wanted).await.unwrap()).await, LIST);
}

#[tokio::test]
async fn what_is_cut_off_is_no_content() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n".as_slice();
    for then in [Then::Say([head, LIST].concat()), Then::Break([head, LIST].concat())] {
        let error = refused(then).await;
        assert!(error.starts_with("it was cut off after 26 of 100 octets: "), "{error}");
    }
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1a\r\n".as_slice();
    let error = refused(Then::Say([chunked, LIST, b"\r\n"].concat())).await;
    assert!(error.starts_with("it was cut off after 26 octets: "), "{error}");
    // Without a length the end is TLS's farewell, and nothing else.
    let endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".as_slice();
    let error = refused(Then::Break([endless, LIST].concat())).await;
    assert!(error.starts_with("it was cut off after 26 octets: "), "{error}");
    let lab = Lab::new().await;
    let https = lab.serve(move |_| Then::Say([endless, LIST].concat())).await;
    let fetched = lab.fetcher.fetch(&lab.wanted(HOST, https.address.port())).await.unwrap();
    assert_eq!(text_of(fetched).await, LIST);
}

#[tokio::test]
async fn a_limit_bounds_what_is_announced_and_what_comes() {
    let body = vec![b'x'; (1 << 20) + 1];
    let too_large = "it is larger than max_size, 1048576 octets";
    // Nothing of the body is waited for.
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    assert_eq!(refused(Then::Hang(head.into_bytes())).await, too_large);
    let endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".as_slice();
    assert_eq!(refused(Then::Hang([endless, &body].concat())).await, too_large);
    let lab = Lab::new().await;
    let https = lab.serve(move |_| answer("200 OK", &[], &body[1..])).await;
    let fetched = lab.fetcher.fetch(&lab.wanted(HOST, https.address.port())).await.unwrap();
    assert_eq!(text_of(fetched).await.len(), 1 << 20);
}

#[tokio::test]
async fn a_server_that_holds_the_line_is_left() {
    let mut lab = Lab::new().await;
    lab.fetcher.patience.header = Duration::from_millis(200);
    lab.fetcher.patience.body = Pace { grace: Duration::from_millis(200), bytes_s_min: 100_000 };
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n".to_vec();
    let https = lab
        .serve(move |request| match &request[5..6] {
            "a" => Then::Hang(Vec::new()),
            "b" => Then::Drip(b"HTTP/1.1 200 OK\r\nx-slow: ".to_vec(), Duration::from_millis(20)),
            "c" => Then::Hang(head.clone()),
            _ => Then::Drip(head.clone(), Duration::from_millis(20)),
        })
        .await;
    let mut wanted = lab.wanted(HOST, https.address.port());
    for path in ["/a", "/b", "/c", "/d"] {
        wanted.address = wanted.address.redirected(path).unwrap();
        let error = lab.fetcher.fetch(&wanted).await.unwrap_err();
        match path {
            "/a" | "/b" => assert!(matches!(error, FetchError::Silent { .. }), "{path}: {error}"),
            _ => assert!(matches!(error, FetchError::Slow { .. }), "{path}: {error}"),
        }
    }
    assert_eq!(lab.left_behind(), 0);
}

#[tokio::test]
async fn statuses_and_codings_that_are_no_list_are_refused() {
    let error = refused(answer("404 Not Found", &[], b"<html>gone</html>")).await;
    assert!(error.ends_with(" answered 404 Not Found"), "{error}");
    let error = refused(answer("200 OK", &["content-encoding: gzip"], LIST)).await;
    assert!(error.ends_with("sent it as gzip, which was not asked for"), "{error}");
    let error = refused(Then::Say(b"220 feeds.example ESMTP\r\n".to_vec())).await;
    assert!(error.starts_with("feeds.example:"), "{error}");
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let error = refused(Then::Hang(huge.into_bytes())).await;
    assert!(error.contains("too large"), "{error}");
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_back() {
    let lab = Lab::new().await;
    let https = lab.serve(|_| answer("429 Too Many Requests", &["retry-after: 90"], b"")).await;
    let error = lab.fetcher.fetch(&lab.wanted(HOST, https.address.port())).await.unwrap_err();
    let FetchError::Busy { retry_after, .. } = error else { panic!("{error}") };
    assert_eq!(retry_after, Some(Duration::from_secs(90)));
}

#[tokio::test]
async fn only_a_certificate_for_the_name_from_a_known_authority_will_do() {
    let lab = Lab::new().await;
    let https = lab.serve(|_| answer("200 OK", &[], LIST)).await;
    let port = https.address.port();
    lab.names.set("third.example", Behaviour::a(&["127.0.0.1"], 60));
    let error = lab.fetcher.fetch(&lab.wanted("third.example", port)).await.unwrap_err();
    assert!(error.to_string().contains("at 127.0.0.1: TLS: invalid peer certificate"), "{error}");
    let mut strange = lab.wanted(HOST, port);
    strange.authorities = Some(authority(&lab.dir.path().join("strange"), &[HOST])[0].clone());
    let error = lab.fetcher.fetch(&strange).await.unwrap_err();
    assert!(error.to_string().contains("TLS: invalid peer certificate"), "{error}");
    strange.authorities = Some(lab.dir.path().join("none.pem"));
    let error = lab.fetcher.fetch(&strange).await.unwrap_err();
    assert!(matches!(error, FetchError::Trust(_)), "{error}");
    assert!(https.requests().is_empty());
    // An address in the place of a name is verified as well.
    assert!(lab.fetcher.fetch(&lab.wanted("127.0.0.1", port)).await.is_ok());
}

#[tokio::test]
async fn ipv6_is_spoken_and_every_address_is_tried() {
    let mut lab = Lab::new().await;
    lab.fetcher.patience.connect.next = Duration::from_millis(50);
    let https = Https::start("[::1]:0", &lab.pems, |_| answer("200 OK", &[], LIST)).await;
    let port = https.address.port();
    let literal = lab.fetcher.fetch(&lab.wanted("[::1]", port)).await.unwrap();
    assert_eq!(text_of(literal).await, LIST);
    lab.names.set("six.example", Behaviour::aaaa(&["::1"], 60));
    let wrong_name = lab.fetcher.fetch(&lab.wanted("six.example", port)).await.unwrap_err();
    assert!(wrong_name.to_string().contains("at ::1: TLS"), "{wrong_name}");

    // 127.0.0.8 refuses, 127.0.0.9 takes the connection and says nothing, 127.0.0.1 serves.
    lab.names.set("other.example", Behaviour::a(&["127.0.0.8", "127.0.0.9", "127.0.0.1"], 60));
    let https = lab.serve(|_| answer("200 OK", &[], LIST)).await;
    let port = https.address.port();
    let _silent = std::net::TcpListener::bind(("127.0.0.9", port)).unwrap();
    let fetched = lab.fetcher.fetch(&lab.wanted("other.example", port)).await.unwrap();
    assert_eq!(text_of(fetched).await, LIST);
    drop(https);
    lab.fetcher.patience.connect.each = Duration::from_millis(200);
    let error = lab.fetcher.fetch(&lab.wanted("other.example", port)).await.unwrap_err();
    let FetchError::Unreachable(reasons) = error else { panic!("{error}") };
    assert_eq!(reasons.len(), 3, "{reasons:?}");
}

#[tokio::test]
async fn a_name_without_an_address_and_a_name_server_that_fails_are_told_apart() {
    let lab = Lab::new().await;
    lab.names.set("broken.example", Behaviour::ServerFailure);
    let error = lab.fetcher.fetch(&lab.wanted("none.example", 443)).await.unwrap_err();
    assert!(matches!(error, FetchError::NoAddress { .. }), "{error}");
    let error = lab.fetcher.fetch(&lab.wanted("broken.example", 443)).await.unwrap_err();
    assert!(matches!(error, FetchError::Lookup { .. }), "{error}");
}
