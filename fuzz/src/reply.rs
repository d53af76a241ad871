//! Whatever a server says, the reader of replies keeps its place or gives up, within its bounds.

use relay_core::smtp::client::{
    Capabilities, Response, ResponseError, ResponseReader,
    response::{LINE_MAX, LINES_MAX},
};

use super::pieces;

/// First octet: how the rest is cut. The rest: what the server says.
pub fn check(data: &[u8]) {
    let [seed, stream @ ..] = data else { return };
    let whole = read(&[stream]);
    assert_eq!(read(&pieces(stream, *seed)), whole, "the cut matters");
    for response in whole.iter().flatten() {
        check_response(response);
    }
    let failed = whole.iter().any(Result::is_err);
    nothing_is_lost(stream, whole.iter().flatten(), failed);
}

fn read(pieces: &[&[u8]]) -> Vec<Result<Response, ResponseError>> {
    let mut reader = ResponseReader::default();
    let mut found = Vec::new();
    for piece in pieces {
        reader.push(piece);
        loop {
            match reader.next_response() {
                Ok(Some(response)) => found.push(Ok(response)),
                Ok(None) => break,
                Err(error) => {
                    found.push(Err(error));
                    return found;
                }
            }
        }
    }
    found
}

fn check_response(response: &Response) {
    assert!((200..=599).contains(&response.code), "{response:?}");
    assert!((1..=LINES_MAX).contains(&response.lines.len()), "{response:?}");
    for line in &response.lines {
        // An octet that is no UTF-8 becomes a character of three.
        assert!(line.len() <= 3 * LINE_MAX, "{line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    if let Some((class, subject, detail)) = response.enhanced {
        assert_eq!(u16::from(class), response.code / 100, "{response:?}");
        assert!(subject <= 999 && detail <= 999, "{response:?}");
    }
    let shown = response.to_string();
    assert!(!shown.contains(['\r', '\n']), "{shown:?}");
    let _whatever_it_offers = Capabilities::of(response);
}

/// A reply ends with each line whose code has no `-` behind it: none is read as part of another,
/// and no line has a CR or LF in it.
fn nothing_is_lost<'a>(stream: &[u8], responses: impl Iterator<Item = &'a Response>, failed: bool) {
    let whole = stream.windows(2).rposition(|pair| pair == b"\r\n").map_or(0, |at| at + 2);
    let text = String::from_utf8_lossy(&stream[..whole]);
    let mut lines = text.split_terminator("\r\n");
    let goes_on = |line: &&str| line.as_bytes().get(3) == Some(&b'-');
    for response in responses {
        let taken: Vec<&str> = lines.by_ref().take(response.lines.len()).collect();
        assert_eq!(taken.len(), response.lines.len(), "{response:?}");
        assert_eq!(
            taken.iter().position(|line| !goes_on(line)),
            Some(taken.len() - 1),
            "{taken:?}"
        );
        assert!(taken.iter().all(|line| !line.contains(['\r', '\n'])), "{taken:?}");
    }
    assert!(failed || lines.all(|line| goes_on(&line)), "a reply was left");
}
