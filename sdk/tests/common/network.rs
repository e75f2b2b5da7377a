//! What lies between device and gateway: passes TCP on, and UDP if it likes.

use super::FakeGateway;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

pub struct Network {
    /// Whether UDP is swallowed.
    pub blocks_udp: AtomicBool,
    /// UDP packets from devices, passed on or not.
    pub packets: AtomicUsize,
    /// Where UDP goes.
    quic: SocketAddr,
    tcp: SocketAddr,
}

impl Network {
    /// Puts itself before the gateway. UDP goes to `quic`.
    pub async fn before(gateway: &mut FakeGateway, quic: SocketAddr) -> Arc<Self> {
        let (udp, listener) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(listener) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, listener);
            }
        };
        let tcp = std::mem::replace(&mut gateway.deployment.gateway.address, udp.local_addr().unwrap());
        let network =
            Arc::new(Self { blocks_udp: AtomicBool::default(), packets: AtomicUsize::default(), quic, tcp });
        tokio::spawn(network.clone().pass_udp(Arc::new(udp)));
        tokio::spawn(network.clone().pass_tcp(listener));
        network
    }

    async fn pass_udp(self: Arc<Self>, front: Arc<UdpSocket>) {
        let ways: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>> = Mutex::default();
        let mut packet = [0; 2000];
        while let Ok((len, device)) = front.recv_from(&mut packet).await {
            self.packets.fetch_add(1, Ordering::Relaxed);
            if self.blocks_udp.load(Ordering::Relaxed) {
                continue;
            }
            let known = ways.lock().unwrap().get(&device).cloned();
            let way = match known {
                Some(way) => way,
                None => {
                    let way = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    way.connect(self.quic).await.unwrap();
                    ways.lock().unwrap().insert(device, way.clone());
                    let (network, front, back) = (self.clone(), front.clone(), way.clone());
                    tokio::spawn(async move {
                        let mut packet = [0; 2000];
                        while let Ok(len) = back.recv(&mut packet).await {
                            if !network.blocks_udp.load(Ordering::Relaxed) {
                                let _ = front.send_to(&packet[..len], device).await;
                            }
                        }
                    });
                    way
                }
            };
            let _ = way.send(&packet[..len]).await;
        }
    }

    async fn pass_tcp(self: Arc<Self>, listener: TcpListener) {
        while let Ok((mut device, _)) = listener.accept().await {
            let tcp = self.tcp;
            tokio::spawn(async move {
                let mut gateway = TcpStream::connect(tcp).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut device, &mut gateway).await;
            });
        }
    }
}
