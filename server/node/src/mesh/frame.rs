//! Frames on a stream: a length (four bytes, little-endian), then that many bytes. A receiver says
//! how long a frame may be and checks before it allocates.

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why no frame could be read.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The stream or its connection ended.
    Closed,
    /// The frame is longer than allowed; its length.
    TooLarge(usize),
}

/// Reads one frame of at most `max` bytes.
pub(crate) async fn read(stream: &mut RecvStream, max: usize) -> Result<Vec<u8>, FrameError> {
    let mut header = [0u8; 4];
    stream.read_exact(&mut header).await.map_err(|_| FrameError::Closed)?;
    let length = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
    if length > max {
        return Err(FrameError::TooLarge(length));
    }
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        match stream.read_chunk(length - bytes.len(), true).await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk.bytes),
            Ok(None) | Err(_) => return Err(FrameError::Closed),
        }
    }
    Ok(bytes)
}

/// Writes one frame. Fails when the stream or its connection ended.
pub(crate) async fn write(stream: &mut SendStream, bytes: impl Into<Bytes>) -> Result<(), FrameError> {
    let bytes = bytes.into();
    let length = u32::try_from(bytes.len()).map_err(|_| FrameError::TooLarge(bytes.len()))?;
    stream.write_all(&length.to_le_bytes()).await.map_err(|_| FrameError::Closed)?;
    stream.write_chunk(bytes).await.map_err(|_| FrameError::Closed)
}

/// Reads a postcard value from a frame of at most `max` bytes. What cannot be decoded counts as a
/// closed stream: it ends the exchange all the same.
pub(crate) async fn read_value<T: DeserializeOwned>(
    stream: &mut RecvStream,
    max: usize,
) -> Result<T, FrameError> {
    postcard::from_bytes(&read(stream, max).await?).map_err(|_| FrameError::Closed)
}

/// Writes a postcard value as a frame.
pub(crate) async fn write_value<T: Serialize>(stream: &mut SendStream, value: &T) -> Result<(), FrameError> {
    let bytes = postcard::to_stdvec(value).map_err(|_| FrameError::Closed)?;
    write(stream, bytes).await
}
