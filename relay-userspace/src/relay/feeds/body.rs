//! The content, from the wire to disk: never in memory as a whole, never beyond its size, and not
//! at the pace of whoever wants to hold the line.

use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::FetchError;

/// How slowly a body may come: after the first `grace`, at least `bytes_s_min` on the average of
/// the whole body, so that a byte now and then is not enough.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub grace: Duration,
    pub bytes_s_min: u64,
}

impl Pace {
    /// When a body that began at `start` and has brought `bytes` must have brought more.
    fn patience(&self, start: Instant, bytes: u64) -> Instant {
        start
            + self.grace
            + Duration::from_millis(bytes.saturating_mul(1000) / self.bytes_s_min.max(1))
    }
}

/// A file without a name, which goes with its last handle, whatever ends the process.
///
/// # Errors
/// The folder cannot be written.
pub async fn nameless(folder: &Path, name: &str) -> Result<File, FetchError> {
    let path = folder.join(name);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&path).await.map_err(FetchError::Disk)?;
    tokio::fs::remove_file(&path).await.map_err(FetchError::Disk)?;
    Ok(file)
}

/// Brings the whole body into the file, and the file back to its start; returns its size in octets.
///
/// # Errors
/// It is too large, too slow or cut off, or the disk does not take it.
pub async fn receive(
    mut body: Incoming,
    file: &mut File,
    bytes_max: u64,
    pace: Pace,
) -> Result<u64, FetchError> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|announced| announced > bytes_max) {
        return Err(FetchError::TooLarge { max: bytes_max });
    }
    let start = Instant::now();
    let mut got: u64 = 0;
    loop {
        let frame = match timeout_at(pace.patience(start, got), body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(FetchError::CutOff { got, of: announced, why: because(&error) });
            }
            Ok(None) => break,
            Err(_) => return Err(FetchError::Slow { got, after: start.elapsed() }),
        };
        // Trailers say nothing that matters here.
        let Ok(data) = frame.into_data() else { continue };
        got += data.len() as u64;
        if got > bytes_max {
            return Err(FetchError::TooLarge { max: bytes_max });
        }
        file.write_all(&data).await.map_err(FetchError::Disk)?;
    }
    if let Some(of) = announced.filter(|&of| of != got) {
        return Err(FetchError::CutOff { got, of: Some(of), why: "the server closed".to_owned() });
    }
    file.flush().await.map_err(FetchError::Disk)?;
    file.seek(SeekFrom::Start(0)).await.map_err(FetchError::Disk)?;
    Ok(got)
}

/// hyper's errors say the most in what caused them.
pub(super) fn because(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
