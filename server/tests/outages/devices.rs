//! Devices that keep asking, over every transport.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use seco_sdk::{Client, Deployment, Transport};
use tokio::task::JoinHandle;

use crate::common::{Site, digits};
use crate::{MARGIN, SOON};

pub const DEVICES: usize = 4;
/// The time limit of a request: longer than a server that was killed is ever away.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two requests of a device that rests.
const REST: Duration = Duration::from_millis(500);

/// When each device was answered last, in microseconds since the start, and how many answers it had.
struct Answers {
    start: Instant,
    last: [AtomicU64; DEVICES],
    count: [AtomicU64; DEVICES],
    errors: Mutex<Vec<String>>,
    stop: AtomicBool,
    rest: AtomicBool,
}

impl Answers {
    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

pub struct Devices {
    answers: Arc<Answers>,
    tasks: Vec<JoinHandle<()>>,
}

impl Devices {
    pub fn start(deployment: &Deployment, site: &Arc<Site>) -> Devices {
        let answers = Arc::new(Answers {
            start: Instant::now(),
            last: Default::default(),
            count: Default::default(),
            errors: Mutex::default(),
            stop: AtomicBool::new(false),
            rest: AtomicBool::new(false),
        });
        let start = |number| tokio::spawn(device(number, deployment.clone(), site.clone(), answers.clone()));
        Devices { tasks: (0..DEVICES).map(start).collect(), answers: answers.clone() }
    }

    /// Waits until every device had an answer from now on; gives how long the last one waited.
    pub async fn served(&self, round: &str) -> Duration {
        let (begin, from) = (Instant::now(), self.answers.now());
        let served = |number: &usize| self.answers.last[*number].load(Ordering::Relaxed) > from;
        while !(0..DEVICES).all(|number| served(&number)) {
            let waiting: Vec<_> = (0..DEVICES).filter(|number| !served(number)).collect();
            if begin.elapsed() > SOON + MARGIN {
                let errors = self.answers.errors.lock().unwrap();
                let last = &errors[errors.len().saturating_sub(8)..];
                panic!("{round}: devices {waiting:?} wait for {:?}: {last:?}", SOON + MARGIN);
            }
            self.go_on();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begin.elapsed()
    }

    /// They ask less often, or as often as they can: otherwise bundles are used as soon as they are made.
    pub fn rest(&self, rest: bool) {
        self.answers.rest.store(rest, Ordering::Relaxed);
    }

    /// None has met anything but errors that pass.
    pub fn go_on(&self) {
        assert!(self.tasks.iter().all(|device| !device.is_finished()), "a device gave up");
    }

    /// The errors of requests since this was asked last.
    pub fn errors(&self) -> Vec<String> {
        std::mem::take(&mut *self.answers.errors.lock().unwrap())
    }

    /// Stops all; gives the errors that they met since they were asked for last.
    pub async fn end(&mut self) -> Vec<String> {
        self.answers.stop.store(true, Ordering::Relaxed);
        for device in self.tasks.drain(..) {
            device.await.unwrap();
        }
        let errors = self.errors();
        let counts = self.answers.count.each_ref().map(|count| count.load(Ordering::Relaxed));
        println!("answers {counts:?}, errors {}", errors.len());
        errors
    }
}

/// Ends with a panic when a request does not.
async fn in_time<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit + MARGIN, work).await.expect("a request does not end")
}

async fn device(number: usize, deployment: Deployment, site: Arc<Site>, answers: Arc<Answers>) {
    const CONNECT: Duration = Duration::from_secs(2);
    let via = [Transport::Quic, Transport::Tcp, Transport::Auto, Transport::Quic][number % 4];
    let builder = || {
        Client::builder(deployment.clone()).transport(via).connect_timeout(CONNECT).request_timeout(PATIENCE)
    };
    let mut client = None;
    let digits = digits();
    let mut round = number;
    while !answers.stop.load(Ordering::Relaxed) {
        let Some(connected) = &client else {
            // A gateway that answers is asked again for as long as a request may take.
            match in_time(CONNECT + PATIENCE, builder().connect()).await {
                Ok(connected) => client = Some(connected),
                Err(error) => {
                    assert!(error.is_temporary(), "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            continue;
        };
        round += 1;
        let digit = &digits[round % digits.len()];
        match in_time(PATIENCE, Client::infer(connected, digit)).await {
            Ok(prediction) => {
                assert_eq!(prediction.logits, site.expected(digit), "device {number}");
                answers.last[number].store(answers.now(), Ordering::Relaxed);
                answers.count[number].fetch_add(1, Ordering::Relaxed);
                if answers.rest.load(Ordering::Relaxed) {
                    tokio::time::sleep(REST).await;
                }
            }
            Err(error) => {
                assert!(error.is_temporary(), "{error}");
                let at = answers.start.elapsed();
                answers.errors.lock().unwrap().push(format!("{at:.1?}, device {number}: {error}"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
