//! A cluster of real servers behind a bad network, and a device that keeps a record of its pads.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use seco_node::config::Pool;
use seco_node::operation::events::Event;
use seco_sdk::{Client, ClientBuilder, Deployment, Error, Prediction, Progress, Transport, TransportKind};
use tokio::task::JoinHandle;

use crate::common::{LIMIT, Server, Site, digits};
use crate::network::Network;

/// What the machine may add to a time limit of the library.
pub const MARGIN: Duration = Duration::from_secs(15);

/// How long the tests let a request take: long enough for a second try on a busy machine.
pub const REQUEST: Duration = Duration::from_secs(10);

/// The same where nothing is expected to come of it.
pub const SHORT: Duration = Duration::from_secs(4);

/// How long they let a connection take.
pub const CONNECT: Duration = Duration::from_secs(2);

pub const EVERY: [Transport; 3] = [Transport::Quic, Transport::Tcp, Transport::Auto];

pub type Answer = Result<Prediction, Error>;

pub struct Cluster {
    site: Site,
    pub servers: Vec<Server>,
    /// Where the gateway is, and is again after a restart.
    address: SocketAddr,
    pub network: Arc<Network>,
    pub deployment: Deployment,
    pub digits: Vec<Vec<u8>>,
}

impl Cluster {
    /// A gateway and two remotes, with a full pool.
    pub async fn start() -> Self {
        let mut site = Site::new(3);
        site.pool = Pool { size: 8, low: 4, ..Pool::default() };
        let (mut servers, address) = site.start_all();
        servers[0].wait_bundle();
        let network = Network::start(address, address).await;
        let deployment = site.deployment(network.address);
        Self { servers, address, network, deployment, digits: digits(), site }
    }

    /// Takes the network out of the way: devices see for themselves whether the gateway is there.
    pub fn direct(&mut self) {
        self.deployment.gateway.address = self.address.to_string().parse().unwrap();
    }

    /// Settings of a client.
    pub fn builder(&self, via: Transport) -> ClientBuilder {
        Client::builder(self.deployment.clone())
            .transport(via)
            .fallback_delay(Duration::from_millis(300))
            .connect_timeout(CONNECT)
            .request_timeout(REQUEST)
            .keep_sent(true)
    }

    /// A device that is connected.
    pub async fn device(&self, via: Transport) -> Arc<Device> {
        Device::new(self.builder(via).connect().await.unwrap(), REQUEST)
    }

    /// One over each transport, and one that chooses. They do not wait for long.
    pub async fn devices(&self) -> Vec<Arc<Device>> {
        let mut devices = Vec::new();
        for via in EVERY {
            let client = self.builder(via).request_timeout(SHORT).connect().await.unwrap();
            devices.push(Device::new(client, SHORT));
        }
        devices
    }

    /// How connecting fails, over every transport.
    pub async fn refuses_connections(&self) -> Vec<Error> {
        let tries = EVERY.map(|via| tokio::spawn(in_time(CONNECT, self.builder(via).connect())));
        let mut errors = Vec::new();
        for connected in tries {
            errors.push(connected.await.unwrap().unwrap_err());
        }
        errors
    }

    /// What the plaintext network says.
    pub fn expected(&self, digit: usize) -> Vec<i32> {
        self.site.expected(&self.digits[digit])
    }

    /// The answer is right, bit for bit.
    pub fn check(&self, digit: usize, result: Answer) {
        assert_eq!(result.unwrap().logits, self.expected(digit), "digit {digit}");
    }

    /// A request on a network that works.
    pub async fn works(&self, device: &Device, digit: usize) {
        self.check(digit, device.infer(&self.digits[digit]).await);
    }

    /// Stops a server without a word to anyone, and lets it go on.
    pub fn freeze(&self, server: usize) {
        self.servers[server].signal("-STOP");
    }

    /// Harmless if it was killed.
    pub fn thaw(&self, server: usize) {
        let process = self.servers[server].process.id().to_string();
        let _ = Command::new("kill").args(["-CONT", &process]).stderr(Stdio::null()).status();
    }

    pub fn kill(&mut self, server: usize) {
        self.servers[server].signal("-KILL");
        self.servers[server].ended(Duration::from_secs(10));
    }

    /// Starts a server again, with the same keys, settings and addresses.
    pub fn restart(&mut self, server: usize) {
        let mut config = self.site.config(server);
        config.listen.device = (server == 0).then_some(self.address);
        let mut started = Server::start(&self.site.write(&config), &[]);
        started.wait("sockets", |event| matches!(event, Event::Listening { .. }).then_some(()));
        self.servers[server] = started;
    }

    /// Does `fault` while a request of every device is at the gateway. The answers wait for a remote that
    /// stands still in the meantime. Gives each request's result, and how often it was sent.
    pub async fn during(
        &mut self,
        devices: &[Arc<Device>],
        digit: usize,
        fault: impl AsyncFnOnce(&mut Self),
    ) -> Vec<(Answer, usize)> {
        self.freeze(1);
        let requests: Vec<_> = devices.iter().map(|device| self.request(device, digit)).collect();
        let all_sent = async {
            while requests.iter().any(|(_, sent)| sent.load(Ordering::Relaxed) == 0) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // Loopback takes no time: now they are at the gateway.
            tokio::time::sleep(Duration::from_millis(150)).await;
        };
        in_time(REQUEST, all_sent).await;
        assert!(requests.iter().all(|(request, _)| !request.is_finished()), "under way");
        fault(self).await;
        self.thaw(1);
        let mut results = Vec::new();
        for (request, sent) in requests {
            results.push((request.await.unwrap(), sent.load(Ordering::Relaxed)));
        }
        results
    }

    /// A request, and how often it was sent so far.
    fn request(&self, device: &Arc<Device>, digit: usize) -> (JoinHandle<Answer>, Arc<AtomicUsize>) {
        let (device, input, sent) = (device.clone(), self.digits[digit].clone(), Arc::default());
        let count: Arc<AtomicUsize> = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            let count = || {
                count.fetch_add(1, Ordering::Relaxed);
            };
            in_time(device.limit, device.infer_telling(&input, count)).await
        });
        (task, sent)
    }

    /// One request of every device, at the same time.
    pub async fn at_once(&self, devices: &[Arc<Device>], digit: usize) -> Vec<Answer> {
        let requests: Vec<_> = devices.iter().map(|device| self.request(device, digit).0).collect();
        let mut results = Vec::new();
        for request in requests {
            results.push(request.await.unwrap());
        }
        results
    }

    /// Requests are answered again, in the end.
    pub async fn recovers(&self, device: &Device, digit: usize) {
        let answered = async {
            loop {
                match in_time(device.limit, device.infer(&self.digits[digit])).await {
                    Ok(prediction) => break prediction,
                    Err(error) => assert!(passes(&error), "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let prediction = tokio::time::timeout(LIMIT, answered).await.unwrap();
        assert_eq!(prediction.logits, self.expected(digit));
    }
}

/// Errors that time mends.
pub fn passes(error: &Error) -> bool {
    use seco_sdk::Refusal::{TimedOut, Unavailable};
    matches!(
        error,
        Error::Timeout { .. }
            | Error::Connect { .. }
            | Error::Closed(_)
            | Error::Busy { .. }
            | Error::Refused(Unavailable { .. } | TimedOut)
    )
}

/// Fails if `work` exceeds `limit` by more than a machine's slowness explains.
pub async fn in_time<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = tokio::time::timeout(limit + MARGIN, work).await;
    result.unwrap_or_else(|_| panic!("{:?} instead of {limit:?}", start.elapsed()))
}

/// A client, and all pads that it ever used. The client says what it sends, and `sent ^ input` is the pad, of
/// all servers together: it must never come again. Requests on one device are made one after the other.
pub struct Device {
    pub client: Client,
    pub pads: Pads,
    /// The time limit of its requests.
    limit: Duration,
}

/// Pads that were used. Shared by clients that use one stored session.
#[derive(Clone, Default)]
pub struct Pads(Arc<Mutex<Used>>);

#[derive(Default)]
struct Used {
    pads: HashSet<Vec<u8>>,
    last: Vec<u8>,
}

impl Pads {
    /// Takes down what was sent last, if that is new.
    fn take_down(&self, client: &Client, input: &[u8]) {
        let Some(sent) = client.last_sent() else { return };
        let mut used = self.0.lock().unwrap();
        if sent == used.last {
            return;
        }
        assert_eq!(sent.len(), input.len());
        let pad = sent.iter().zip(input).map(|(sent, input)| sent ^ input).collect();
        assert!(used.pads.insert(pad), "a pad was used twice");
        used.last = sent;
    }

    /// Requests that were sent.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().pads.len()
    }
}

impl Device {
    pub fn new(client: Client, limit: Duration) -> Arc<Self> {
        Self::sharing(client, limit, &Pads::default())
    }

    /// A client whose session may be an earlier one's.
    pub fn sharing(client: Client, limit: Duration, pads: &Pads) -> Arc<Self> {
        Arc::new(Self { client, pads: pads.clone(), limit })
    }

    /// What its session is called.
    pub fn session(&self) -> String {
        format!("{:?}", self.client)
    }

    pub async fn infer(&self, input: &[u8]) -> Answer {
        self.infer_telling(input, || ()).await
    }

    /// Calls `sent` whenever the request leaves the device.
    pub async fn infer_telling(&self, input: &[u8], mut sent: impl FnMut() + Send) -> Answer {
        // What leaves and is lost, or whose future is dropped, has left all the same.
        let _end = AtTheEnd(|| self.pads.take_down(&self.client, input));
        let told = |progress| {
            if progress == Progress::Sent {
                self.pads.take_down(&self.client, input);
                sent();
            }
        };
        self.client.infer_with(input, told).await
    }

    pub fn is_over(&self, kind: TransportKind) {
        assert_eq!(self.client.transport(), kind);
    }
}

struct AtTheEnd<F: Fn()>(F);

impl<F: Fn()> Drop for AtTheEnd<F> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0();
        }
    }
}

/// How many sockets the gateway has seen devices at.
pub fn sources(network: &Network) -> usize {
    network.sources.load(Ordering::Relaxed)
}
