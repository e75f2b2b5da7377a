//! The links of three servers over channels in memory.

use std::time::Duration;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::channel::memory;

const SERVERS: usize = 3;

/// Runs one closure per server over a new network.
fn all<T: Send, A: Send>(
    arguments: Vec<A>,
    work: impl Fn(usize, A, &mut memory::MemoryChannel) -> T + Sync,
) -> Vec<T> {
    std::thread::scope(|scope| {
        let channels = memory::network(arguments.len(), Duration::from_millis(2000));
        let start = |((i, argument), mut channel): ((usize, A), _)| {
            let work = &work;
            scope.spawn(move || work(i, argument, &mut channel))
        };
        let threads: Vec<_> = arguments.into_iter().enumerate().zip(channels).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn generator(number: u64, server: usize) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(number * 100 + server as u64)
}

fn cluster() -> Vec<LinkSeeds> {
    all((0..SERVERS).collect(), |i, _, channel| {
        LinkSeeds::base(channel, &[OT_PARAMETER; SERVERS], &mut generator(1, i)).unwrap()
    })
}

/// One server's part of a bundle: its offset, its links, the nonces.
type Made = (Delta, Links, Vec<Nonce>);

/// Makes the links of a bundle, whose number each server is told, from generators that `number` seeds.
fn bundle(
    cluster: &mut [LinkSeeds],
    indices: [u64; SERVERS],
    numbers: [u64; SERVERS],
) -> Vec<Result<Made, Error>> {
    all(cluster.iter_mut().collect(), |i, seeds, channel| {
        let mut rng = generator(numbers[i], i);
        let (delta, mut nonce) = (Delta::random(&mut rng), Nonce::default());
        rng.fill_bytes(&mut nonce);
        let (links, nonces) = seeds.take(indices[i])?.bundle(channel, &delta, indices[i], nonce)?;
        Ok((delta, links, nonces))
    })
}

/// Whether correlated OTs from server 0, with the choices, to server 1 come out right.
fn correlated(made: Vec<Result<Made, Error>>) -> bool {
    let made: Vec<Made> = made.into_iter().map(Result::unwrap).collect();
    let delta = made[1].0.block();
    let choices = || Bits::random(300, &mut generator(9, 9));
    let mut ends = all(made, |i, (_, mut links, _), channel| match i {
        0 => (links.choose(channel, &[(choices(), vec![1])]).unwrap(), Vec::new()),
        1 => (Vec::new(), links.keys(channel, &[vec![(0, 300)]]).unwrap()),
        _ => Default::default(),
    });
    let ((_, macs), keys) = (ends[0].0[0].remove(0), ends[1].1[0].remove(0));
    let choices = choices();
    let pairs = macs.blocks().iter().zip(keys.blocks()).enumerate();
    macs.len() == 300 && pairs.into_iter().all(|(i, (m, k))| m.0 == (*k ^ delta.select(choices.mask(i))).0)
}

/// All servers see the same nonces, each its own where it belongs; another one's randomness changes its nonce and no
/// other.
#[test]
fn everyone_contributes_a_nonce() {
    let mut cluster = cluster();
    let mut nonces = |index, numbers| -> Vec<Nonce> {
        let made = bundle(&mut cluster, [index; SERVERS], numbers);
        let all: Vec<_> = made.into_iter().map(|made| made.unwrap().2).collect();
        assert!(all.iter().all(|nonces| *nonces == all[0]));
        all[0].clone()
    };
    let first = nonces(0, [5; SERVERS]);
    for server in 0..SERVERS {
        let mut numbers = [5; SERVERS];
        numbers[server] = 6;
        let other = nonces(1 + server as u64, numbers);
        assert!((0..SERVERS).all(|i| (other[i] == first[i]) == (i != server)), "{server}");
    }
}

/// Numbers are served in any order, on every server in its own, and no number twice.
#[test]
fn bundles_are_numbered() {
    let mut cluster = cluster();
    assert!(correlated(bundle(&mut cluster, [3; SERVERS], [5; SERVERS])));
    assert!(correlated(bundle(&mut cluster, [1; SERVERS], [6; SERVERS])));
    assert_eq!(cluster[0].next(), 4);
    for index in [1, 3, 4 + seco_ot::WINDOW] {
        let refused = bundle(&mut cluster, [index; SERVERS], [7; SERVERS]);
        assert!(
            refused.iter().all(|made| matches!(made, Err(Error::Ot(seco_ot::Error::Index { .. })))),
            "{index}"
        );
    }
    // The others go on.
    assert!(correlated(bundle(&mut cluster, [4; SERVERS], [8; SERVERS])));
    assert!(correlated(bundle(&mut cluster, [0; SERVERS], [8; SERVERS])));
}

/// Servers that were told different numbers notice, instead of garbling with noise; the next number is in step.
#[test]
fn different_numbers_are_noticed() {
    let mut cluster = cluster();
    let made = bundle(&mut cluster, [0, 0, 1], [5; SERVERS]);
    assert!(made.iter().all(Result::is_err));
    // Whoever compares first names the other; to the rest it is gone.
    let named: Vec<(usize, usize)> = made
        .iter()
        .enumerate()
        .filter_map(|(server, made)| match made {
            Err(Error::Peer { peer, .. }) => Some((server, *peer)),
            _ => None,
        })
        .collect();
    assert!(
        !named.is_empty() && named.iter().all(|&(server, peer)| (server == 2) != (peer == 2)),
        "{named:?}"
    );
    assert!(correlated(bundle(&mut cluster, [2; SERVERS], [6; SERVERS])));
}

/// The same random choices under another number meet other seeds: with the messages of both on record, nothing repeats.
#[test]
fn numbers_share_no_stream() {
    let mut cluster = cluster();
    let sent = |cluster: &mut [LinkSeeds], index: u64| {
        let link = cluster[0].take(index).unwrap();
        let [_, Some(mut receiver), _] = <[_; SERVERS]>::try_from(link.receivers).ok().unwrap() else {
            panic!()
        };
        receiver.extend_random(&Bits::zeros(BASE)).unwrap().1
    };
    let (first, second) = (sent(&mut cluster, 0), sent(&mut cluster, 1));
    let blocks = |message: &[u8]| message.as_chunks::<16>().0.to_vec();
    let second = blocks(&second);
    assert!(blocks(&first).iter().all(|block| !second.contains(block)));
}
