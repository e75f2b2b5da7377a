//! Which server is at fault when a job fails on several.

use crate::failure::Failure;

/// A server that failed, and how.
pub(crate) struct Blame {
    pub server: usize,
    pub failure: Failure,
    /// The protocol's own error, where it failed on this server.
    pub cause: Option<seco_protocol::Error>,
}

/// What lies behind the failures of a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// This failure, by its place.
    Failure(usize),
    /// This server does not answer; the failure at the place says so.
    Silence(usize, usize),
}

/// Looks for it: a failure that blames nobody else's silence; else the server at the end of the chain in which
/// each says that it waited for the next. Whoever gave up is silent to those who wait for it.
pub(super) fn root(failed: &[Blame]) -> Root {
    let silent = |blame: &Blame| match blame.failure {
        Failure::Unavailable(server) | Failure::TimedOut(server) => Some(server),
        _ => None,
    };
    if let Some(at) = failed.iter().position(|blame| silent(blame).is_none()) {
        return Root::Failure(at);
    }
    let mut at = 0;
    // No longer than there are failures: servers may wait for each other in a circle.
    for _ in failed {
        let Some(server) = failed.get(at).and_then(silent) else { break };
        let waits = |blame: &Blame| blame.server == server && silent(blame) != Some(server);
        match failed.iter().position(waits) {
            Some(next) => at = next,
            None => return Root::Silence(at, server),
        }
    }
    failed.get(at).and_then(silent).map_or(Root::Failure(at), |server| Root::Silence(at, server))
}

/// The protocol's own error, if trying again will not help.
pub(super) fn lasting(blame: &Blame) -> Option<&seco_protocol::Error> {
    let passing = matches!(
        blame.failure,
        Failure::Unavailable(_) | Failure::TimedOut(_) | Failure::Misbehaved(_) | Failure::Ledger
    );
    blame.cause.as_ref().filter(|_| !passing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three servers: whoever noticed what first, the one at fault is named.
    #[test]
    fn the_server_at_fault_is_found() {
        use Failure::{BundleSpent, Ledger, TimedOut, Unavailable};
        for (failed, expected) in [
            // Server 2 is gone: each way in which the others can notice.
            (vec![(0, Unavailable(2))], Root::Silence(0, 2)),
            (vec![(0, Unavailable(1)), (1, Unavailable(2))], Root::Silence(1, 2)),
            (vec![(1, Unavailable(2)), (0, Unavailable(1))], Root::Silence(0, 2)),
            (vec![(0, Unavailable(1)), (2, Unavailable(2)), (1, TimedOut(2))], Root::Silence(2, 2)),
            // The command to server 1 itself was not answered.
            (vec![(1, Unavailable(1))], Root::Silence(0, 1)),
            (vec![(0, TimedOut(2)), (1, Unavailable(1))], Root::Silence(0, 2)),
            // Somebody did something else than wait.
            (vec![(0, Unavailable(1)), (1, Ledger)], Root::Failure(1)),
            (vec![(0, Unavailable(1)), (2, BundleSpent), (1, Unavailable(2))], Root::Failure(1)),
            // In a circle, somebody is named.
            (vec![(0, Unavailable(1)), (1, Unavailable(2)), (2, Unavailable(1))], Root::Silence(1, 2)),
            (vec![], Root::Failure(0)),
        ] {
            let blames: Vec<_> =
                failed.iter().map(|&(server, failure)| Blame { server, failure, cause: None }).collect();
            assert_eq!(root(&blames), expected, "{failed:?}");
        }
    }
}
