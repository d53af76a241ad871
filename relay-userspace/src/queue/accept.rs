//! Taking one message in: memory while small, a file when large, one row at the end.

use super::body::{Checksum, Content, Incoming};
use super::message::{NewMessage, Stored, to_ms};
use super::spool::Spool;
use super::writer::Change;
use super::{QueueId, StoreError};
use std::time::SystemTime;

/// A message on its way into the queue. Dropped before `commit`, it leaves nothing behind.
///
/// It holds at most `inline_bytes_max` of memory, however large the message is.
#[derive(Debug)]
pub struct MessageWriter {
    spool: Spool,
    id: QueueId,
    message: NewMessage,
    received: SystemTime,
    buffer: Vec<u8>,
    overflow: Option<Incoming>,
    size: u64,
    checksum: Checksum,
    eight_bit: bool,
    failed: Option<StoreError>,
}

impl MessageWriter {
    pub(super) fn new(
        spool: Spool,
        id: QueueId,
        message: NewMessage,
        received: SystemTime,
    ) -> Self {
        Self {
            spool,
            id,
            message,
            received,
            buffer: Vec::new(),
            overflow: None,
            size: 0,
            checksum: Checksum::new(),
            eight_bit: false,
            failed: None,
        }
    }

    /// The id that the Received line and the 250 name.
    pub fn queue_id(&self) -> QueueId {
        self.id
    }

    /// Octets written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Content could not be written: `commit` will say why.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The header section, which has come, has fields in UTF-8 (RFC 6531).
    pub fn set_utf8(&mut self) {
        self.message.options.utf8 = true;
    }

    /// Appends content: CRLF lines unless it is binary, not dot-stuffed. After an error the message is lost: further
    /// writes and `commit` return the same error.
    pub fn write(&mut self, data: &[u8]) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.size += data.len() as u64;
        self.checksum.update(data);
        self.eight_bit |= !data.is_ascii();
        self.append(data).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn append(&mut self, data: &[u8]) -> Result<(), StoreError> {
        let limit = self.spool.settings().inline_bytes_max;
        if self.buffer.len() + data.len() <= limit {
            self.buffer.extend_from_slice(data);
            return Ok(());
        }
        let file = match &mut self.overflow {
            Some(file) => file,
            none => none.insert(self.spool.begin_file(self.id)?),
        };
        file.write(&self.buffer)?;
        self.buffer.clear();
        if data.len() > limit {
            return file.write(data);
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    /// Makes the message durable; when this returns `Ok`, it is on disk and will be delivered.
    pub async fn commit(mut self) -> Result<QueueId, StoreError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let content = match self.overflow.take() {
            None => Content::Inline(std::mem::take(&mut self.buffer).into()),
            Some(mut file) => {
                let (folders, id) = (self.spool.folders().clone(), self.id);
                let rest = std::mem::take(&mut self.buffer);
                let finish = move || {
                    file.write(&rest)?;
                    file.finish(&folders, id)
                };
                let joined = tokio::task::spawn_blocking(finish).await;
                Content::File(joined.map_err(|error| StoreError::Io(error.to_string()))??)
            }
        };
        let stored = Stored {
            id: self.id,
            message: self.message,
            received_ms: to_ms(self.received),
            size: self.size,
            checksum: self.checksum.value(),
            eight_bit: self.eight_bit,
            content,
        };
        self.spool.submit(Change::Store(Box::new(stored))).await?;
        Ok(self.id)
    }

    #[cfg(test)]
    pub(super) fn pretend_id(&mut self, id: QueueId) {
        self.id = id;
    }
}
