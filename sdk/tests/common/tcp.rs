//! The test gateway's TCP side, and what hostile ones are made of.

use super::{Shared, answer};
use seco_core::mux::{decode_record, empty_record, encode_id};
use seco_core::{EXPORTER_LABEL, EXPORTER_LEN};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub type Stream = TlsStream<TcpStream>;

pub struct Wire {
    id: u32,
    /// An empty item closes the connection.
    out: mpsc::UnboundedSender<Vec<u8>>,
    given_up: oneshot::Receiver<()>,
}

impl Wire {
    pub fn write(&self, frame: &[u8]) {
        let _ = self.out.send(record(self.id, frame));
    }

    pub async fn given_up(&mut self) -> Option<u64> {
        (&mut self.given_up).await.ok()?;
        self.end();
        Some(0)
    }

    pub fn end(&self) {
        self.write(&[0]);
    }

    pub fn close(&self) {
        let _ = self.out.send(Vec::new());
    }
}

/// A frame under an id.
pub fn record(id: u32, frame: &[u8]) -> Vec<u8> {
    let mut bytes = [0; 4];
    let len = encode_id(id, &mut bytes).unwrap();
    [&bytes[..len], frame].concat()
}

/// The next record from a client: its id and message.
pub async fn read_record<S: AsyncReadExt + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> Option<(u32, Vec<u8>)> {
    loop {
        if let Some(record) = decode_record(buffer, 1 << 26).unwrap()
            && let Some(message) = record.message(buffer)
        {
            let message = message.to_vec();
            buffer.drain(..record.len());
            return Some((record.id, message));
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

pub async fn accept(listener: TcpListener, config: rustls::ServerConfig, shared: Arc<Shared>) {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let exporter = [0; EXPORTER_LEN];
            let exporter = stream.get_ref().1.export_keying_material(exporter, EXPORTER_LABEL, None).unwrap();
            let (read, mut write) = tokio::io::split(stream);
            let (out, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
            let reading = tokio::spawn(requests(read, exporter, out, shared));
            while let Some(bytes) = queue.recv().await {
                if bytes.is_empty() || write.write_all(&bytes).await.is_err() {
                    break;
                }
                let _ = write.flush().await;
            }
            let _ = write.shutdown().await;
            reading.abort();
        });
    }
}

async fn requests(
    mut read: ReadHalf<Stream>,
    exporter: [u8; EXPORTER_LEN],
    out: mpsc::UnboundedSender<Vec<u8>>,
    shared: Arc<Shared>,
) {
    let mut open = HashMap::new();
    let mut buffer = Vec::new();
    while let Some((id, message)) = read_record(&mut read, &mut buffer).await {
        if id == 0 {
            let (pong, len) = empty_record(0).unwrap();
            let _ = out.send(pong[..len].to_vec());
        } else if message.is_empty() {
            let given_up: Option<oneshot::Sender<()>> = open.remove(&id);
            let _ = given_up.map(|given_up| given_up.send(()));
        } else {
            let (sender, given_up) = oneshot::channel();
            open.insert(id, sender);
            let wire = Wire { id, out: out.clone(), given_up };
            let shared = shared.clone();
            tokio::spawn(async move { answer(super::Wire::Tcp(wire), &exporter, &message, shared).await });
        }
    }
}
