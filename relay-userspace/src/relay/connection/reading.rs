//! Reading from a client into a buffer that belongs to the thread, not to the session: ten thousand
//! sessions may wait for their next command, and none of them needs room until it comes.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// One read takes this much at most: what a record of TLS can hold (RFC 8446 section 5.1).
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Waits for octets and gives them to `take`, once; none of them: the end of the stream. When this
/// is dropped before it is ready, nothing has been read.
pub(super) async fn read_once<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    mut take: impl FnMut(&[u8]) -> T,
) -> io::Result<T> {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            Poll::Ready(Ok(take(read.filled())))
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_came_is_taken_once_and_the_end_is_nothing() {
        let (mut client, mut server) = tokio::io::duplex(4 * READ_BYTES);
        client.write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(read_once(&mut server, <[u8]>::to_vec).await.unwrap(), b"QUIT\r\n");
        client.write_all(&vec![b'x'; READ_BYTES + 1]).await.unwrap();
        drop(client);
        for length in [READ_BYTES, 1, 0] {
            assert_eq!(read_once(&mut server, <[u8]>::len).await.unwrap(), length);
        }
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_loses_nothing() {
        let (mut client, mut server) = tokio::io::duplex(64);
        tokio::select! {
            biased;
            _ = read_once(&mut server, <[u8]>::len) => panic!("nothing has come"),
            () = std::future::ready(()) => {}
        }
        client.write_all(b"x").await.unwrap();
        assert_eq!(read_once(&mut server, <[u8]>::to_vec).await.unwrap(), b"x");
    }
}
