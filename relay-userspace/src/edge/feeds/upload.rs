//! Content that arrives over the control socket, written to a file as it comes: a list of millions
//! is never held in memory as text.

use std::io::Write;

use axum::body::Body;
use http_body_util::BodyExt;

use super::{Incoming, Upload};
use crate::control::api::{Code, Problem};

/// Writes a request's body where the owner said.
///
/// # Errors
/// It is larger than the feed may be, it was cut off, or the disk fails. Nothing of it stays.
pub(in crate::edge) async fn receive(mut body: Body, upload: Upload) -> Result<Incoming, Problem> {
    let size_bytes_max = upload.size_bytes_max;
    let (incoming, mut file) = upload.begin()?;
    let mut left = size_bytes_max;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(Code::Invalid, format!("the content was cut off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        left = left.checked_sub(data.len() as u64).ok_or_else(|| {
            let message = format!("the content is larger than {size_bytes_max} bytes");
            Problem::new(Code::TooLarge, message).remedy("raise the feed's max_size")
        })?;
        // Into the page cache: as quick as a copy.
        file.write_all(&data).map_err(|error| {
            Problem::new(Code::Storage, format!("the content could not be written: {error}"))
        })?;
    }
    Ok(incoming)
}
