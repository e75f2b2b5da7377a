//! Messages between the two parties: one TCP connection on the loopback interface for each lane.
//!
//! A frame is its length (four bytes, little-endian) and the message. What is counted is frames, in
//! full and in both directions; headers of TCP and IP are not in it, nor is TLS, which a deployment
//! adds.

use std::io::{self, BufReader, BufWriter, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use seco_protocol::{Channel, ChannelError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{PARTIES, SERVER};
use crate::Error;
use crate::bench::child::failed;

/// A party that is silent for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(600);
/// Whoever connects says at once who it is.
const GREETING: Duration = Duration::from_secs(10);
/// Bytes of the length before a message.
const HEADER: usize = 4;
/// Small messages that follow each other leave together.
const BUFFER: usize = 64 << 10;

/// Linear and non-linear layers are preprocessed side by side.
pub const LANES: usize = 2;

/// What the device shows when it connects: other programs reach the loopback interface too.
#[derive(Clone, Serialize, Deserialize)]
pub struct Token(pub [u8; 16]);

/// One lane. Sending queues, for a thread of its own to write: so two parties that both send first
/// cannot block each other.
pub struct Lane {
    me: usize,
    input: BufReader<TcpStream>,
    outbox: mpsc::Sender<Vec<u8>>,
    writer: JoinHandle<io::Result<()>>,
    /// Bytes of the frames sent.
    pub sent: u64,
    /// Bytes of the frames received.
    pub received: u64,
}

/// Waits for the device, telling it by `announce` where.
pub fn accept(token: &Token, announce: impl FnOnce(SocketAddr)) -> Result<[Lane; LANES], Error> {
    let io = |e: io::Error| failed("the server's socket", e);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io)?;
    announce(listener.local_addr().map_err(io)?);
    let mut lanes = [None, None];
    while lanes.iter().any(Option::is_none) {
        let (stream, _) = listener.accept().map_err(io)?;
        // A stranger's connection is dropped.
        if let Some(place) = greeted(&stream, token).and_then(|lane| lanes.get_mut(lane)) {
            *place = Some(Lane::new(SERVER, stream).map_err(io)?);
        }
    }
    match lanes {
        [Some(a), Some(b)] => Ok([a, b]),
        _ => Err(failed("the server's socket", "the device did not connect")),
    }
}

/// Connects the device to the server.
pub fn connect(token: &Token, server: SocketAddr, me: usize) -> Result<[Lane; LANES], Error> {
    let lane = |number: u8| {
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(&token.0)?;
        stream.write_all(&[number])?;
        Lane::new(me, stream)
    };
    let io = |e: io::Error| failed("the connection to the server", e);
    Ok([lane(0).map_err(io)?, lane(1).map_err(io)?])
}

/// The lane that a connection is for, if it comes from the device.
fn greeted(mut stream: &TcpStream, token: &Token) -> Option<usize> {
    stream.set_read_timeout(Some(GREETING)).ok()?;
    let mut greeting = [0; 17];
    stream.read_exact(&mut greeting).ok()?;
    let (shown, lane) = greeting.split_last_chunk::<1>().map(|(shown, [lane])| (shown, lane))?;
    (shown == token.0).then_some(usize::from(*lane))
}

impl Lane {
    fn new(me: usize, stream: TcpStream) -> io::Result<Lane> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let (outbox, messages) = mpsc::channel();
        let output = BufWriter::with_capacity(BUFFER, stream.try_clone()?);
        // A broken connection ends the thread; the next message that is queued then tells.
        let writer = thread::Builder::new().spawn(move || write(output, &messages))?;
        let input = BufReader::with_capacity(BUFFER, stream);
        Ok(Lane { me, input, outbox, writer, sent: 0, received: 0 })
    }

    /// Waits until all that was sent is on its way: the process may end then.
    pub fn close(self) {
        drop(self.outbox);
        // A connection that broke has a peer that failed, which says so itself.
        let _ = self.writer.join();
    }

    fn peer(&self) -> usize {
        PARTIES - 1 - self.me
    }

    /// Waits until both parties are here. What was sent before has then been read.
    pub fn meet(&mut self) -> Result<(), ChannelError> {
        let counts = (self.sent, self.received);
        self.send(self.peer(), Vec::new())?;
        self.recv(self.peer(), 0)?;
        (self.sent, self.received) = counts;
        Ok(())
    }
}

fn write(mut output: BufWriter<TcpStream>, messages: &mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
    while let Ok(first) = messages.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            let length = u32::try_from(message.len()).map_err(|_| ErrorKind::InvalidInput)?;
            output.write_all(&length.to_le_bytes())?;
            output.write_all(&message)?;
            next = messages.try_recv().ok();
        }
        output.flush()?;
    }
    Ok(())
}

impl Channel for Lane {
    fn me(&self) -> usize {
        self.me
    }

    fn parties(&self) -> usize {
        PARTIES
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError> {
        if to != self.peer() {
            return Err(ChannelError::Closed { peer: to });
        }
        self.sent += (HEADER + message.len()) as u64;
        self.outbox.send(message).map_err(|_| ChannelError::Closed { peer: to })
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        if from != self.peer() {
            return Err(ChannelError::Closed { peer: from });
        }
        let broken = |e: io::Error| match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ChannelError::TimedOut { peer: from },
            _ => ChannelError::Closed { peer: from },
        };
        let mut header = [0; HEADER];
        self.input.read_exact(&mut header).map_err(broken)?;
        let got = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
        if got > max {
            return Err(ChannelError::TooLarge { peer: from, got, max });
        }
        let mut message = Zeroizing::new(vec![0; got]);
        self.input.read_exact(&mut message).map_err(broken)?;
        self.received += (HEADER + got) as u64;
        Ok(std::mem::take(&mut *message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: usize = super::super::DEVICE;

    fn pair() -> ([Lane; LANES], [Lane; LANES]) {
        let token = Token([7; 16]);
        let (address, told) = mpsc::channel();
        let theirs = token.clone();
        let server = thread::spawn(move || accept(&theirs, |a| address.send(a).unwrap()).unwrap());
        let address = told.recv().unwrap();
        // A stranger comes first.
        drop(connect(&Token([8; 16]), address, DEVICE).unwrap());
        let device = connect(&token, address, DEVICE).unwrap();
        (server.join().unwrap(), device)
    }

    #[test]
    fn frames_are_counted_on_both_sides_and_meetings_are_not() {
        let ([mut server, _a], [mut device, _b]) = pair();
        let large = vec![5; 3 << 20];
        let copy = large.clone();
        let other = thread::spawn(move || {
            // Both send more than any socket buffers before they read.
            server.send(DEVICE, copy.clone()).unwrap();
            assert_eq!(server.recv(DEVICE, 4 << 20).unwrap(), copy);
            server.send(DEVICE, Vec::new()).unwrap();
            server.meet().unwrap();
            let counts = (server.sent, server.received);
            server.close();
            counts
        });
        device.send(SERVER, large.clone()).unwrap();
        assert_eq!(device.recv(SERVER, 4 << 20).unwrap(), large);
        assert!(device.recv(SERVER, 9).unwrap().is_empty());
        device.meet().unwrap();
        let frame = 4 + large.len() as u64;
        assert_eq!((device.sent, device.received), (frame, frame + 4));
        assert_eq!(other.join().unwrap(), (frame + 4, frame));
    }

    #[test]
    fn what_is_too_long_or_gone_is_an_error() {
        let ([mut server, _a], [mut device, _b]) = pair();
        server.send(DEVICE, vec![0; 10]).unwrap();
        let error = device.recv(SERVER, 9).unwrap_err();
        assert!(matches!(error, ChannelError::TooLarge { peer: SERVER, got: 10, max: 9 }), "{error}");
        let ([server, _a], [mut device, _b]) = pair();
        server.close();
        let error = device.recv(SERVER, 9).unwrap_err();
        assert!(matches!(error, ChannelError::Closed { peer: SERVER }), "{error}");
    }
}
