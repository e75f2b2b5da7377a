//! A slow wire: relays that hold back what they carry, so that a cluster on one machine shows what its
//! rounds and bytes cost between distant ones. [`Relay`] is for datagrams, [`StreamRelay`] for TCP.

mod link;
mod stream;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

pub use self::link::Link;
use self::link::Pace;
pub use self::stream::StreamRelay;

/// Bytes on their way in one direction. A wire drops what exceeds it, and QUIC sends that again.
const MAX_HELD: usize = 64 << 20;

/// Clients of one relay; the one that was silent for longest makes place for a new one.
const MAX_CLIENTS: usize = 64;

/// The largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// A relay in front of one address. It ends when dropped.
pub struct Relay {
    address: SocketAddr,
    task: AbortHandle,
}

impl Relay {
    /// Opens a socket on loopback that stands for `target`: a datagram to it arrives at `target`
    /// as `link` says, a delay or a [`Link`], and so does the answer at the sender.
    pub async fn start(target: SocketAddr, link: impl Into<Link>) -> io::Result<Relay> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = front.local_addr()?;
        let task = tokio::spawn(serve(front, target, link.into())).abort_handle();
        Ok(Relay { address, task })
    }

    /// The address to use in place of the target's.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The task owns all routes, and they their tasks.
        self.task.abort();
    }
}

/// Takes datagrams of all clients.
async fn serve(front: Arc<UdpSocket>, target: SocketAddr, link: Link) {
    // All clients share the wire.
    let paces = [Pace::new(link), Pace::new(link)];
    let mut routes: HashMap<SocketAddr, Route> = HashMap::new();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        // An error is a late notice about a datagram sent earlier, which counts as lost.
        let Ok((length, client)) = front.recv_from(&mut buffer).await else { continue };
        if !routes.contains_key(&client) {
            // No socket left: the datagram is lost, the next one tries again.
            let Ok(route) = Route::open(front.clone(), client, target, &paces).await else { continue };
            if routes.len() >= MAX_CLIENTS {
                let silent = routes.iter().min_by_key(|(_, r)| r.used).map(|(&client, _)| client);
                silent.map(|client| routes.remove(&client));
            }
            routes.insert(client, route);
        }
        if let Some(route) = routes.get_mut(&client) {
            route.used = route.up.push(&buffer[..length]);
        }
    }
}

/// What belongs to one client: a socket of its own towards the target, which tells the target's
/// answers to different clients apart.
struct Route {
    up: Line,
    used: Instant,
    /// Ends the route's tasks when dropped.
    _tasks: JoinSet<()>,
}

impl Route {
    async fn open(
        front: Arc<UdpSocket>,
        client: SocketAddr,
        target: SocketAddr,
        [rise, fall]: &[Pace; 2],
    ) -> io::Result<Route> {
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        back.connect(target).await?;
        let (up, mut rising) = line(rise);
        let (down, mut falling) = line(fall);
        let mut tasks = JoinSet::new();
        let upstream = back.clone();
        tasks.spawn(async move {
            while let Some(datagram) = rising.next().await {
                let _ = upstream.send(&datagram).await;
            }
        });
        tasks.spawn(async move {
            let mut buffer = vec![0; MAX_DATAGRAM];
            loop {
                if let Ok(length) = back.recv(&mut buffer).await {
                    down.push(&buffer[..length]);
                }
            }
        });
        tasks.spawn(async move {
            while let Some(datagram) = falling.next().await {
                let _ = front.send_to(&datagram, client).await;
            }
        });
        Ok(Route { up, used: Instant::now(), _tasks: tasks })
    }
}

/// The entrance of a delay line.
struct Line {
    queue: mpsc::UnboundedSender<(Instant, Box<[u8]>)>,
    held: Arc<AtomicUsize>,
    pace: Pace,
    room: usize,
}

/// Its exit.
struct Exit {
    queue: mpsc::UnboundedReceiver<(Instant, Box<[u8]>)>,
    held: Arc<AtomicUsize>,
}

/// A line with a pace. Nothing overtakes, and one timer, for the head, is enough: whatever fell due in the
/// meantime follows without another.
fn line(pace: &Pace) -> (Line, Exit) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let held = Arc::new(AtomicUsize::new(0));
    let room = pace.link().room().min(MAX_HELD);
    (Line { queue: sender, held: held.clone(), pace: pace.clone(), room }, Exit { queue: receiver, held })
}

impl Line {
    /// Takes a datagram, or drops it when the line is full. Returns the time.
    fn push(&self, datagram: &[u8]) -> Instant {
        let now = Instant::now();
        if self.held.fetch_add(datagram.len(), Ordering::Relaxed) + datagram.len() > self.room
            || self.queue.send((self.pace.due(now, datagram.len()), datagram.into())).is_err()
        {
            self.held.fetch_sub(datagram.len(), Ordering::Relaxed);
        }
        now
    }
}

impl Exit {
    /// The next datagram, when it is due.
    async fn next(&mut self) -> Option<Box<[u8]>> {
        let (due, datagram) = self.queue.recv().await?;
        if due > Instant::now() {
            sleep_until(due).await;
        }
        self.held.fetch_sub(datagram.len(), Ordering::Relaxed);
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn socket() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    /// Sends back whatever comes.
    async fn echo() -> SocketAddr {
        let socket = socket().await;
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; MAX_DATAGRAM];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                socket.send_to(&buffer[..length], from).await.unwrap();
            }
        });
        address
    }

    async fn receive(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = vec![0; MAX_DATAGRAM];
        let length = timeout(LIMIT, socket.recv(&mut buffer)).await.unwrap().unwrap();
        buffer.truncate(length);
        buffer
    }

    #[tokio::test]
    async fn delays_each_way_and_keeps_the_order() {
        let delay = Duration::from_millis(30);
        let relay = Relay::start(echo().await, delay).await.unwrap();
        let client = socket().await;
        client.connect(relay.address()).await.unwrap();
        let mut sent = Vec::new();
        for i in 0..50u8 {
            client.send(&[i; 100]).await.unwrap();
            sent.push(Instant::now());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut fastest = LIMIT;
        for (i, sent) in (0..50u8).zip(sent) {
            assert_eq!(receive(&client).await, [i; 100]);
            // Read in time or late, never early.
            assert!(sent.elapsed() >= 2 * delay);
            fastest = fastest.min(sent.elapsed());
        }
        assert!(fastest < 4 * delay, "{fastest:?} there and back");
    }

    #[tokio::test]
    async fn tells_clients_apart() {
        let relay = Relay::start(echo().await, Duration::from_millis(2)).await.unwrap();
        let (a, b) = (socket().await, socket().await);
        for (client, word) in [(&a, b"from a"), (&b, b"from b")] {
            client.connect(relay.address()).await.unwrap();
            client.send(word).await.unwrap();
        }
        assert_eq!((receive(&a).await, receive(&b).await), (b"from a".to_vec(), b"from b".to_vec()));
    }

    #[tokio::test]
    async fn carries_many_datagrams_at_once() {
        const COUNT: u32 = 20_000;
        // As many on the way as fit the smallest usual socket buffer.
        const WINDOW: u32 = 64;
        let relay = Relay::start(echo().await, Duration::from_millis(1)).await.unwrap();
        let client = socket().await;
        client.connect(relay.address()).await.unwrap();
        let start = Instant::now();
        let mut datagram = [0; 1200];
        for i in 0..COUNT + WINDOW {
            if i < COUNT {
                datagram[..4].copy_from_slice(&i.to_le_bytes());
                client.send(&datagram).await.unwrap();
            }
            if let Some(expected) = i.checked_sub(WINDOW) {
                assert_eq!(receive(&client).await[..4], expected.to_le_bytes());
            }
        }
        // One timer for each would take 20,000 x 2 ms.
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn drops_what_a_full_line_cannot_hold() {
        let (line, mut exit) = line(&Pace::new(Duration::ZERO.into()));
        let datagram = vec![7; MAX_DATAGRAM];
        let fit = MAX_HELD / MAX_DATAGRAM;
        for _ in 0..fit + 10 {
            line.push(&datagram);
        }
        drop(line);
        let mut count = 0;
        while exit.next().await.is_some() {
            count += 1;
        }
        assert_eq!(count, fit);
    }

    #[tokio::test]
    async fn survives_a_target_that_is_not_there() {
        let target = socket().await.local_addr().unwrap();
        let relay = Relay::start(target, Duration::from_millis(1)).await.unwrap();
        let client = socket().await;
        client.connect(relay.address()).await.unwrap();
        for _ in 0..3 {
            client.send(b"nobody").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let late = UdpSocket::bind(target).await.unwrap();
        client.send(b"somebody").await.unwrap();
        let mut buffer = [0; 16];
        let (length, _) = timeout(LIMIT, late.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer[..length], b"somebody");
    }
}
