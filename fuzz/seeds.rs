//! Dialogues as inputs of the fuzz targets. Included by what writes seeds, and by what replays them.

use super::script::{Script, Step};

/// Longest stream; what is longer is repetition.
const STREAM_MAX: usize = 2000;

/// How whatever is cut is cut.
const CUT: u8 = 7;

/// All inputs that a dialogue makes, each with its target.
pub(crate) fn of(script: &Script) -> Vec<(&'static str, Vec<u8>)> {
    let normalize = script.directive("bare_newlines").next() == Some("normalize");
    let (mut client, mut server) = (Vec::new(), Vec::new());
    for (_, step) in &script.steps {
        match step {
            Step::Send(bytes) => client.extend_from_slice(bytes),
            Step::Expect(line) => server.extend_from_slice(format!("{line}\r\n").as_bytes()),
            _ => {}
        }
    }
    client.truncate(STREAM_MAX);
    server.truncate(STREAM_MAX);
    let mut seeds = vec![
        ("session", session(script)),
        ("framing", [&[u8::from(normalize), CUT], client.as_slice()].concat()),
        ("reply", [&[CUT], server.as_slice()].concat()),
    ];
    for line in client.split(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\r") else { continue };
        seeds.push(("command", [&[3], line].concat()));
        if let Some(at) = line.iter().position(|&byte| byte == b'<') {
            seeds.push(("address", line[at..].to_vec()));
        }
    }
    seeds
}

/// The form is that of the module `session`.
fn session(script: &Script) -> Vec<u8> {
    let is = |key: &str, value: &str| script.directive(key).next() == Some(value);
    let has = |key: &str| script.directive(key).next().is_some();
    let mut bits: u16 = if is("tls", "off") { 1 } else { u16::from(is("tls", "require")) * 2 };
    bits |= if is("auth", "offer") { 1 << 2 } else { u16::from(is("auth", "require")) << 3 };
    for (bit, set) in [
        (4, has("lmtp")),
        (5, has("submission")),
        (6, is("bare_newlines", "normalize")),
        (7, has("binary_mime")),
        (8, has("require_tls")),
        (9, is("enforce_sync", "off")),
        (10, has("message_size_max")),
        (15, has("implicit-tls")),
    ] {
        bits |= u16::from(set) << bit;
    }
    let [low, high] = bits.to_le_bytes();
    let mut seed = vec![low, high, CUT];
    for (_, step) in &script.steps {
        match step {
            Step::Send(bytes) => {
                // The limits there are small: the start of what is long reaches them.
                for part in bytes[..bytes.len().min(4000)].chunks(255) {
                    seed.extend([0, part.len() as u8]);
                    seed.extend_from_slice(part);
                }
            }
            Step::Wait(seconds) => seed.extend([4, (*seconds).min(255) as u8]),
            Step::Eof => seed.extend([6, 0]),
            Step::ShutDown => seed.extend([7, 0]),
            _ => {}
        }
    }
    seed
}
