//! How many bundles of a model a server makes at the same time.

use std::thread::available_parallelism;

use seco_protocol::cost::Cost;
use seco_protocol::{BUNDLES_AT_ONCE, PlannedModel};

use crate::config::{Config, Pool};

/// By the settings, by cores where they leave it open, and never more than `memory_mib` has room for beside the first.
pub fn at_once(config: &Config, pool: &Pool, planned: &PlannedModel) -> usize {
    let me = planned.index();
    let parameter = |a: usize, b: usize| config.ot_parameter(if a == me { b } else { a });
    // A model of which the cost cannot be told cannot be set up either, which says why.
    let bytes = Cost::of(planned.architecture(), parameter).map_or(u64::MAX, |cost| cost.making_bytes(me));
    let cores = available_parallelism().map_or(1, usize::from);
    let number = number(pool, bytes, cores);
    if number < pool.making {
        let (making, mib) = (pool.making, bytes.div_ceil(1 << 20));
        tracing::warn!(
            "[pool] making = {making}, but {number} at the same time is what memory_mib allows: each beside the first \
             takes {mib} MiB"
        );
    }
    number
}

/// The same for a model of which a bundle takes `bytes` while it is made.
fn number(pool: &Pool, bytes: u64, cores: usize) -> usize {
    let wanted = match pool.making {
        // One more than half: while some wait for other servers, others compute.
        0 => cores / 2 + 1,
        making => making,
    };
    let memory = (pool.memory_mib as u64) << 20;
    let beside = usize::try_from(memory / bytes.max(1)).unwrap_or(BUNDLES_AT_ONCE);
    wanted.min(beside.saturating_add(1)).clamp(1, BUNDLES_AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn cores_and_memory_set_the_number() {
        let pool = |making, memory_mib| Pool { making, memory_mib, ..Pool::default() };
        for (making, memory_mib, bytes, cores, expected) in [
            // By cores.
            (0, 64, 1000, 1, 1),
            (0, 64, 1000, 2, 2),
            (0, 64, 1000, 8, 5),
            (0, 64, 1000, 100, BUNDLES_AT_ONCE),
            // As it is said, more than there are cores too.
            (1, 64, 1000, 8, 1),
            (6, 64, 1000, 2, 6),
            // The first always, and beside it what there is room for.
            (0, 64, 65 * MIB, 8, 1),
            (6, 64, 65 * MIB, 8, 1),
            (6, 64, 64 * MIB, 8, 2),
            (6, 64, 20 * MIB, 8, 4),
            (6, 0, 1, 8, 1),
            (6, 64, u64::MAX, 8, 1),
            (6, 64, 0, 8, 6),
        ] {
            let found = number(&pool(making, memory_mib), bytes, cores);
            assert_eq!(found, expected, "{making} {memory_mib} {bytes} {cores}");
        }
    }
}
