//! A device that keeps asking while something is done to the servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use seco_sdk::{Client, Deployment};

use super::{LIMIT, Site, digits};

/// A device that keeps asking until it is told to stop; every answer must be the plaintext's.
pub struct Asking {
    stopped: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Asking {
    pub fn start(site: &Site, deployment: Deployment) -> Asking {
        Asking::every(Duration::from_millis(50), site, deployment)
    }

    /// With this pause after each answer.
    pub fn every(pause: Duration, site: &Site, deployment: Deployment) -> Asking {
        let digits = digits();
        let expected: Vec<Vec<i32>> = digits.iter().map(|digit| site.expected(digit)).collect();
        let (stopped, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stop, count) = (stopped.clone(), answers.clone());
        let task = tokio::spawn(async move {
            let client =
                Client::builder(deployment).request_timeout(Duration::from_secs(60)).connect().await.unwrap();
            for (digit, expected) in digits.iter().zip(&expected).cycle() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                assert_eq!(client.infer(digit).await.unwrap().logits, *expected);
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(pause).await;
            }
        });
        Asking { stopped, answers, task }
    }

    /// Waits for some more answers.
    pub fn more(&self) {
        let (so_far, deadline) = (self.answers.load(Ordering::SeqCst), Instant::now() + LIMIT);
        while self.answers.load(Ordering::SeqCst) < so_far + 3 && !self.task.is_finished() {
            assert!(Instant::now() < deadline, "no more answers");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub async fn stop(self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
    }
}
