//! What the page shows beside an answer: the servers as they are.

use seco_tools::admin;
use serde::Serialize;

use crate::demo::cluster::{Progress, name};

/// The cluster at one moment.
#[derive(Debug, Serialize)]
pub(super) struct Live {
    /// Bundles that are ready: as many predictions can be made at once.
    pool: usize,
    /// What went wrong at a server that has done nothing since.
    failure: Option<String>,
    servers: Vec<Server>,
}

#[derive(Debug, Serialize)]
struct Server {
    name: String,
    bundles: usize,
    inferences: usize,
    /// UDP payload sent to the other servers since the start.
    sent_bytes: u64,
}

impl Live {
    pub(super) fn of(progress: &[Progress]) -> Live {
        let servers = progress.iter().enumerate().map(|(index, server)| Server {
            name: name(index),
            bundles: server.bundles,
            inferences: server.inferences,
            sent_bytes: server.sent,
        });
        let troubled = progress.iter().filter(|server| server.done() == server.done_at_failure);
        let failure = troubled.filter_map(|server| server.failure.clone()).next();
        Live { pool: progress.first().map_or(0, |gateway| gateway.pool), failure, servers: servers.collect() }
    }
}

/// Bytes of messages that each server has sent to others for predictions, from its metrics; what it sends meanwhile
/// for bundles is not among them.
pub(super) async fn sent(servers: &[Progress]) -> Vec<Option<u64>> {
    let mut all = Vec::with_capacity(servers.len());
    for server in servers {
        let page = match server.admin {
            Some(address) => admin::metrics(address).await.ok(),
            None => None,
        };
        all.push(page.as_deref().map(inference_bytes));
    }
    all
}

/// The sum over all models.
fn inference_bytes(page: &str) -> u64 {
    let lines = page.lines().filter(|line| line.starts_with("seco_phase_sent_bytes"));
    let of_inferences = lines.filter(|line| line.contains("phase=\"inference\""));
    of_inferences.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_over_once_the_server_does_something() {
        let fine = Progress { bundles: 3, inferences: 1, ..Progress::default() };
        let failed = Progress { failure: Some("no".to_owned()), done_at_failure: 4, ..fine.clone() };
        let shown = |server: &Progress| Live::of(&[fine.clone(), server.clone()]).failure;
        assert_eq!(shown(&fine), None);
        assert_eq!(shown(&failed).as_deref(), Some("no"));
        assert_eq!(shown(&Progress { bundles: 4, ..failed.clone() }), None);
        assert_eq!(shown(&Progress { inferences: 2, ..failed.clone() }), None);
        let again = Progress { inferences: 2, done_at_failure: 5, ..failed };
        assert_eq!(shown(&again).as_deref(), Some("no"), "it failed once more");
    }

    #[test]
    fn bytes_of_predictions_are_found_among_the_metrics() {
        let page = "# TYPE seco_phase_sent_bytes counter\nseco_phase_sent_bytes_total{phase=\"bundle\"} 9\n\
                    seco_phase_sent_bytes_total{phase=\"inference\",model=\"a\"} 40\n\
                    seco_phase_sent_bytes_total{phase=\"inference\",model=\"b\"} 2\n# EOF\n";
        assert_eq!(inference_bytes(page), 42);
        assert_eq!(inference_bytes(""), 0);
    }
}
