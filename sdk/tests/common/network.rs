//! What lies between device and gateway: a relay that passes UDP and TCP on, well or badly.
//!
//! Towards the gateway every device address has a socket of its own, as behind an address translator, so that
//! a device that moves, or a translator that forgets, looks to the gateway as it does outside.
// Each test file uses a part of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

pub struct Network {
    /// Where devices find the gateway.
    pub address: SocketAddr,
    /// Whether UDP is swallowed.
    pub blocks_udp: AtomicBool,
    /// Whether TCP stands still: connections can be made, as firewalls make them, and nothing travels on them.
    pub blocks_tcp: AtomicBool,
    /// So many TCP connections are accepted and closed, as by a gateway that is just ending.
    pub turns_away: AtomicUsize,
    /// UDP packets from devices, passed on or not.
    pub packets: AtomicUsize,
    /// UDP packets that were lost by chance.
    pub lost: AtomicUsize,
    /// Sockets towards the gateway so far: its view of where devices are.
    pub sources: AtomicUsize,
    /// UDP packets in a thousand that are lost, each way.
    loss: AtomicU32,
    /// How long everything takes, each way, in milliseconds.
    delay: AtomicU32,
    dice: Mutex<u64>,
    ways: Mutex<HashMap<SocketAddr, Way>>,
    /// Sockets of ways that were forgotten: kept, so that their ports do not come again.
    forgotten: Mutex<Vec<Way>>,
    /// Changes when all TCP connections are cut.
    cut: watch::Sender<()>,
    /// Where UDP goes.
    quic: SocketAddr,
    tcp: SocketAddr,
}

/// One device's socket towards the gateway.
struct Way {
    socket: Arc<UdpSocket>,
    back: AbortHandle,
}

impl Network {
    /// Listens on loopback. UDP goes to `quic`, TCP to `tcp`.
    pub async fn start(quic: SocketAddr, tcp: SocketAddr) -> Arc<Self> {
        let (udp, listener) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(listener) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, listener);
            }
        };
        let network = Arc::new(Self {
            address: udp.local_addr().unwrap(),
            blocks_udp: AtomicBool::default(),
            blocks_tcp: AtomicBool::default(),
            turns_away: AtomicUsize::default(),
            packets: AtomicUsize::default(),
            lost: AtomicUsize::default(),
            sources: AtomicUsize::default(),
            loss: AtomicU32::default(),
            delay: AtomicU32::default(),
            dice: Mutex::new(0x9e37_79b9_7f4a_7c15),
            ways: Mutex::default(),
            forgotten: Mutex::default(),
            cut: watch::Sender::default(),
            quic,
            tcp,
        });
        tokio::spawn(network.clone().pass_udp(Arc::new(udp)));
        tokio::spawn(network.clone().pass_tcp(listener));
        network
    }

    /// Loses so many UDP packets in a thousand, each way.
    pub fn lose(&self, per_thousand: u32) {
        self.loss.store(per_thousand, Ordering::Relaxed);
    }

    /// Everything takes that long from now on, each way.
    pub fn delay(&self, delay: Duration) {
        self.delay.store(delay.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }

    pub fn block(&self, udp: bool, tcp: bool) {
        self.blocks_udp.store(udp, Ordering::Relaxed);
        self.blocks_tcp.store(tcp, Ordering::Relaxed);
    }

    /// The address translator forgets everything. What the gateway sends to a known port is swallowed; what
    /// devices send comes from another one.
    pub fn rebind(&self) {
        let forgotten = self.ways.lock().unwrap().drain().map(|(_, way)| way).collect::<Vec<_>>();
        forgotten.iter().for_each(|way| way.back.abort());
        self.forgotten.lock().unwrap().extend(forgotten);
    }

    /// Ends all TCP connections.
    pub fn cut_tcp(&self) {
        self.cut.send_replace(());
    }

    /// Sends `packet` to `to`, or to where `socket` is connected, unless it is lost on the way.
    fn carry(self: &Arc<Self>, socket: &Arc<UdpSocket>, packet: &[u8], to: Option<SocketAddr>) {
        if self.blocks_udp.load(Ordering::Relaxed) || self.is_lost() {
            return;
        }
        let (socket, packet, delay) = (socket.clone(), packet.to_vec(), self.time());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            // Nobody there: lost as well.
            let _ = match to {
                Some(to) => socket.send_to(&packet, to).await,
                None => socket.send(&packet).await,
            };
        });
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.delay.load(Ordering::Relaxed).into())
    }

    fn is_lost(&self) -> bool {
        // xorshift64*: the same losses in every run, as far as the order of packets is the same.
        let mut dice = self.dice.lock().unwrap();
        *dice ^= *dice >> 12;
        *dice ^= *dice << 25;
        *dice ^= *dice >> 27;
        let thrown = (dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 1000;
        let lost = thrown < self.loss.load(Ordering::Relaxed).into();
        self.lost.fetch_add(lost.into(), Ordering::Relaxed);
        lost
    }

    async fn pass_udp(self: Arc<Self>, front: Arc<UdpSocket>) {
        let mut packet = vec![0; MAX_DATAGRAM];
        loop {
            // An error is about a packet sent earlier.
            let Ok((len, device)) = front.recv_from(&mut packet).await else { continue };
            self.packets.fetch_add(1, Ordering::Relaxed);
            let known = self.ways.lock().unwrap().get(&device).map(|way| way.socket.clone());
            let socket = match known {
                Some(socket) => socket,
                None => self.open(&front, device).await,
            };
            self.carry(&socket, &packet[..len], None);
        }
    }

    /// A socket towards the gateway for `device`, and the way back.
    async fn open(self: &Arc<Self>, front: &Arc<UdpSocket>, device: SocketAddr) -> Arc<UdpSocket> {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        socket.connect(self.quic).await.unwrap();
        self.sources.fetch_add(1, Ordering::Relaxed);
        let (network, front, gateway) = (self.clone(), front.clone(), socket.clone());
        let back = tokio::spawn(async move {
            let mut packet = vec![0; MAX_DATAGRAM];
            loop {
                if let Ok(len) = gateway.recv(&mut packet).await {
                    network.carry(&front, &packet[..len], Some(device));
                }
            }
        });
        let way = Way { socket: socket.clone(), back: back.abort_handle() };
        self.ways.lock().unwrap().insert(device, way);
        socket
    }

    async fn pass_tcp(self: Arc<Self>, listener: TcpListener) {
        while let Ok((device, _)) = listener.accept().await {
            let (order, fewer) = (Ordering::Relaxed, |left: usize| left.checked_sub(1));
            if self.turns_away.fetch_update(order, order, fewer).is_ok() {
                continue;
            }
            let network = self.clone();
            tokio::spawn(async move {
                let mut cut = network.cut.subscribe();
                tokio::select! {
                    () = network.connection(device) => {}
                    _ = cut.changed() => {}
                }
            });
        }
    }

    /// Both directions of a connection, until one of them ends.
    async fn connection(self: &Arc<Self>, device: TcpStream) {
        self.unblocked().await;
        // Nobody there: the device's connection ends too.
        let Ok(gateway) = TcpStream::connect(self.tcp).await else { return };
        let (up_from, down_to) = device.into_split();
        let (down_from, up_to) = gateway.into_split();
        tokio::select! {
            () = self.stream(up_from, up_to) => {}
            () = self.stream(down_from, down_to) => {}
        }
    }

    async fn stream(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut bytes = vec![0; MAX_DATAGRAM];
        while let Ok(len @ 1..) = from.read(&mut bytes).await {
            tokio::time::sleep(self.time()).await;
            self.unblocked().await;
            if to.write_all(&bytes[..len]).await.is_err() {
                return;
            }
        }
    }

    async fn unblocked(&self) {
        while self.blocks_tcp.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
