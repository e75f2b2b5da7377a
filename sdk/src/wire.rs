//! One request and its answer on one QUIC stream.

use crate::{Error, Result, Violation};
use quinn::{Connection, ReadError, RecvStream, SendStream, VarInt, WriteError};
use seco_core::message::{Header, decode_header};
use seco_core::{Request, Response};
use std::time::Duration;

/// Bytes read at once. An answer of ten logits has thirty.
const CHUNK: usize = 1024;

/// Code with which streams are given up.
const CANCELLED: VarInt = VarInt::from_u32(0);

/// A request's stream. Dropped before the answer is complete, it tells the gateway that nobody listens any
/// more: without a reset, quinn would end a half-sent request as if it were whole.
struct Exchange {
    up: SendStream,
    down: RecvStream,
    answered: bool,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.answered {
            // Fails where that direction has ended already.
            let _ = self.up.reset(CANCELLED);
            let _ = self.down.stop(CANCELLED);
        }
    }
}

/// Sends `request` on a stream of its own and waits for the answer, through any [`Response::Queued`].
/// Messages may have up to `limit` bytes; `buffer` holds the answer.
///
/// Dropping the future cancels the request: its stream is reset in both directions.
pub(crate) async fn call<'b>(
    connection: &Connection,
    request: &Request<'_>,
    limit: usize,
    buffer: &'b mut Vec<u8>,
) -> Result<Response<'b>> {
    let mut exchange = send(connection, request).await?;
    loop {
        let header = read_frame(&mut exchange.down, buffer, limit).await?;
        let response = decode(header, buffer)?;
        exchange.answered = !matches!(response, Response::Queued { .. });
        match response {
            Response::Queued { .. } => drop(buffer.drain(..header.header_len + header.message_len)),
            Response::Busy { retry_after_ms } => {
                return Err(Error::Busy { retry_after: Duration::from_millis(retry_after_ms.into()) });
            }
            Response::Refused { reason } => return Err(Error::Refused(reason)),
            // Decoded again: a borrow from inside the loop cannot leave it.
            _ => return decode(header, buffer),
        }
    }
}

async fn send(connection: &Connection, request: &Request<'_>) -> Result<Exchange> {
    let mut buffer = vec![0; request.frame_bound()];
    let frame = request.encode_frame(&mut buffer).map_err(Error::Session)?;
    let (up, down) = connection.open_bi().await?;
    let mut exchange = Exchange { up, down, answered: false };
    match exchange.up.write_all(frame).await {
        // A gateway that stops reading has decided already: its response says why.
        Ok(()) | Err(WriteError::Stopped(_)) => {}
        Err(WriteError::ConnectionLost(error)) => return Err(error.into()),
        Err(_) => return Err(Violation::Dropped.into()),
    }
    // Fails only where the gateway stopped reading.
    let _ = exchange.up.finish();
    Ok(exchange)
}

/// Reads until `buffer` starts with a whole frame.
async fn read_frame(stream: &mut RecvStream, buffer: &mut Vec<u8>, limit: usize) -> Result<Header> {
    loop {
        if let Some(header) = decode_header(buffer, limit).map_err(Violation::Message)?
            && header.message(buffer).is_some()
        {
            return Ok(header);
        }
        match stream.read_chunk(CHUNK, true).await {
            Ok(Some(chunk)) => buffer.extend_from_slice(&chunk.bytes),
            Ok(None) => return Err(Violation::Truncated.into()),
            Err(ReadError::ConnectionLost(error)) => return Err(error.into()),
            Err(_) => return Err(Violation::Dropped.into()),
        }
    }
}

fn decode(header: Header, buffer: &[u8]) -> Result<Response<'_>> {
    let message = header.message(buffer).ok_or(Violation::Truncated)?;
    Ok(Response::decode(message).map_err(Violation::Message)?)
}
