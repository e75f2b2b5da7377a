//! File handles, of which a connection over TCP takes one.

/// Handles for everything else: bundles, ledger, links, logs.
const RESERVED: u64 = 192;

/// Raises the process's limit to what the system allows; gives how many connections of `wanted` over TCP fit below it.
/// The log says so where they do not.
pub(super) fn places(wanted: usize) -> usize {
    let Some(limit) = raised() else { return wanted };
    let fit = places_below(limit, wanted);
    if fit < wanted {
        tracing::warn!(
            "[limits] connections = {wanted} needs {} file handles for TCP, and the system allows this server {limit}: \
             {fit} connections are served over TCP at a time; raise the limit (LimitNOFILE in its systemd unit, or \
             ulimit -n), or lower connections",
            wanted as u64 + RESERVED
        );
    }
    fit
}

/// Always some: with less the server could not have started.
fn places_below(limit: u64, wanted: usize) -> usize {
    let fit = limit.saturating_sub(RESERVED).max(limit / 4).max(1);
    usize::try_from(fit).unwrap_or(usize::MAX).min(wanted)
}

/// The limit, if there is one.
#[cfg(unix)]
fn raised() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where the system allows less than it says, what was stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
fn raised() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_stay_below_the_files() {
        for (limit, wanted, fit) in [(1024, 1024, 832), (4096, 1024, 1024), (200, 1024, 50), (1, 9, 1)] {
            assert_eq!(places_below(limit, wanted), fit);
        }
    }
}
