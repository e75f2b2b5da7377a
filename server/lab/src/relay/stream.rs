//! The same for TCP connections. Nothing is dropped: who sends more than the wire takes has to wait.
//!
//! TCP itself runs between the ends and the relay, without delay: its own slow start is not seen, which favours
//! whatever uses it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::link::{Link, Pace};

/// Bytes taken up at once.
const PIECE: usize = 16 << 10;
/// Bytes under way at most, where the wire itself does not limit them.
const MAX_UNDER_WAY: usize = 64 << 20;

/// A relay of TCP connections in front of one address. It ends, and they with it, when dropped.
pub struct StreamRelay {
    address: SocketAddr,
    task: AbortHandle,
}

impl StreamRelay {
    /// Opens a port on loopback that stands for `target`.
    pub async fn start(target: SocketAddr, link: Link) -> io::Result<StreamRelay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(StreamRelay { address, task: tokio::spawn(serve(listener, target, link)).abort_handle() })
    }

    /// The address to use in place of the target's.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for StreamRelay {
    fn drop(&mut self) {
        // The task owns all connections.
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, link: Link) {
    let [rise, fall] = [Pace::new(link), Pace::new(link)];
    let mut connections = JoinSet::new();
    loop {
        // Not made, it is as if it had been refused.
        let Ok((near, _)) = listener.accept().await else { continue };
        let (rise, fall) = (rise.clone(), fall.clone());
        connections.spawn(async move {
            let far = TcpStream::connect(target).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::try_join!(carry(near_in, far_out, rise), carry(far_in, near_out, fall))?;
            Ok::<_, io::Error>(())
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One direction of a connection, to its end.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, pace: Pace) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(pace.link().room().clamp(PIECE, MAX_UNDER_WAY)));
    let (queue, mut pieces) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let places = room.clone();
    let reading = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = from.read(&mut buffer).await?;
            // The semaphore is never closed; the writer goes when its end does.
            let Ok(place) = places.acquire_many(length as u32).await else { return Ok(()) };
            place.forget();
            let piece = (pace.due(Instant::now(), length), buffer[..length].to_vec());
            if length == 0 || queue.send(piece).is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            to.write_all(&piece).await?;
            room.add_permits(piece.len());
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn carries_all_in_order_after_the_delay_and_no_faster_than_the_wire() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        let echo = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut input, mut output) = stream.split();
            tokio::io::copy(&mut input, &mut output).await.unwrap();
        });
        let link = Link { delay: Duration::from_millis(10), rate: Some(80_000_000) };
        let relay = StreamRelay::start(target, link).await.unwrap();
        let (mut input, mut output) = TcpStream::connect(relay.address()).await.unwrap().into_split();
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i.wrapping_mul(i) >> 3) as u8).collect();
        let (sent, start) = (data.clone(), Instant::now());
        let sender = tokio::spawn(async move {
            output.write_all(&sent).await.unwrap();
            output.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        input.read_to_end(&mut got).await.unwrap();
        // A megabyte at ten a second, and two delays.
        assert!(start.elapsed() >= Duration::from_millis(120), "{:?}", start.elapsed());
        assert!(got == data);
        sender.await.unwrap();
        echo.await.unwrap();
    }
}
