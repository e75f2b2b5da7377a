//! No server lets out a word that depends on an input before all have confirmed that they spent the bundle
//! for this very request; also where they have begun before it came.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{
    Messages, Refusing, Tap, Transcript, all, bundle_id, cluster, input, model, plain, preprocess, seed,
    session, unmask, usage,
};
use seco_model::paper_placements;
use seco_protocol::{
    BundleId, Error, InsecureMemoryLedger, Ledger, MemorySpool, Party, Request, Use, memory,
};
use sha2::{Digest as _, Sha256};

const SHORT: Duration = Duration::from_millis(300);
const SERVERS: usize = 3;

/// What a server says of a bundle spent for a request: nothing but what all know.
fn confirmation(bundle: &BundleId, request: &Use) -> Vec<u8> {
    Sha256::new()
        .chain_update(b"seco spent v1")
        .chain_update(bundle.0)
        .chain_update(request.session)
        .chain_update(request.incarnation)
        .chain_update(request.counter.to_le_bytes())
        .finalize()
        .to_vec()
}

/// What every server sent online, and how it ended, where server `odd` spends bundle `number` for `other`
/// instead, or is refused by its ledger if that is `None`.
fn attempt(
    parties: &[Party],
    number: u64,
    odd: usize,
    other: Option<Use>,
    x: &[u8],
) -> Vec<(Messages, Error)> {
    let keys = session(SERVERS, 1);
    let mut masked = x.to_vec();
    for key in &keys {
        key.apply_input_pad(number, &mut masked).unwrap();
    }
    let lanes: Vec<_> = memory::network(SERVERS, common::LIMIT)
        .into_iter()
        .zip(memory::network(SERVERS, common::LIMIT))
        .collect();
    let index = parties[0].next_bundle();
    let bundles = all(parties.iter().zip(lanes).collect(), |i, (party, (mut a, mut b))| {
        let spool = Box::new(MemorySpool::default());
        party.preprocess(bundle_id(number), index, &mut a, &mut b, seed(number, i), spool).unwrap()
    });
    let channels = memory::network(SERVERS, SHORT);
    all(parties.iter().zip(bundles).zip(channels).collect(), |i, ((party, bundle), channel)| {
        let (mut channel, sent) = Tap::new(channel);
        let memory = InsecureMemoryLedger::default();
        let (ledger, request): (&dyn Ledger, _) = match other {
            None if i == odd => (&Refusing, usage(1, number)),
            Some(other) if i == odd => (&memory, other),
            _ => (&memory, usage(1, number)),
        };
        let result = bundle.spend(ledger, &request).and_then(|spent| {
            spent.infer(party.planned(), &mut channel, &keys[i], (i == 0).then_some(masked.as_slice()))
        });
        let sent = std::mem::take(&mut *sent.lock().unwrap());
        (sent, result.map(|_| ()).unwrap_err())
    })
}

#[test]
fn one_server_that_does_not_confirm_keeps_every_word_back() {
    let model = model(1);
    let parties = cluster(&model, SERVERS, &paper_placements(4, SERVERS, 1), 3);
    let x = input(&model, 1);
    let right = usage(1, 0);
    let others = [
        None,
        Some(Use { session: [7; 16], ..right }),
        Some(Use { incarnation: [7; 16], ..right }),
        Some(Use { counter: 7, ..right }),
    ];
    let mut number = 0;
    for odd in 0..SERVERS {
        for other in others {
            number += 1;
            // Another number in each round, but for the request that differs on purpose.
            let other = other.map(|other| Use { counter: number + u64::from(other.counter == 7), ..other });
            for (server, (sent, error)) in attempt(&parties, number, odd, other, &x).into_iter().enumerate() {
                let spent_for = if server == odd { other.unwrap_or(right) } else { usage(1, number) };
                let words = confirmation(&bundle_id(number), &spent_for);
                assert!(sent.len() < SERVERS, "server {server} sent more");
                assert!(sent.iter().all(|(_, sent)| *sent == words), "server {server} said more");
                if server == odd && other.is_none() {
                    assert!(matches!(error, Error::Ledger(_)), "{error}");
                } else if other.is_some() && server != odd {
                    let blamed = matches!(error, Error::Peer { peer, .. } if peer == odd);
                    assert!(blamed || matches!(error, Error::Channel(_)), "{error}");
                }
            }
        }
    }
}

/// How an inference ended at one server: with the masked logits at the gateway.
type Ended = Result<Option<Vec<u32>>, Error>;

/// What every server sent, and how it ended, of an inference that is begun ahead: `asked` gives the masked input when it
/// is there, from what all have sent so far, and `told` is what the others do when they are told of it.
fn ahead(
    parties: &[Party],
    number: u64,
    asked: impl Fn(&[Transcript]) -> Result<Vec<u8>, Error> + Sync,
    told: impl Fn(usize) -> Result<(), Error> + Sync,
) -> Vec<(Messages, Ended)> {
    let (bundles, _) = preprocess(parties, number);
    let keys = session(parties.len(), number);
    let channels = memory::network(parties.len(), common::LIMIT);
    let (channels, sent): (Vec<_>, Vec<_>) = channels.into_iter().map(Tap::new).unzip();
    let ended =
        all(parties.iter().zip(bundles).zip(channels).collect(), |i, ((party, bundle), mut channel)| {
            let confirmed = bundle.confirm(party.planned(), &mut channel)?;
            let request: (&mut dyn FnMut() -> _, &mut dyn FnMut() -> _) =
                (&mut || asked(&sent), &mut || told(i));
            let request = if i == 0 { Request::Input(request.0) } else { Request::Told(request.1) };
            confirmed.infer(party.planned(), &mut channel, &keys[i], request)
        });
    sent.iter().map(|sent| std::mem::take(&mut *sent.lock().unwrap())).zip(ended).collect()
}

/// Waits until all but the gateway have sent as much as they may before the request; then what all have sent.
fn waiting(sent: &[Transcript]) -> Vec<Messages> {
    let (each, deadline) = (sent.len() - 1, Instant::now() + common::LIMIT);
    while sent.iter().skip(1).any(|sent| sent.lock().unwrap().len() < 2 * each) {
        assert!(Instant::now() < deadline, "a server does not get as far");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Whoever sends more does it now.
    std::thread::sleep(Duration::from_millis(100));
    sent.iter().map(|sent| sent.lock().unwrap().clone()).collect()
}

/// The servers begin, and the request comes later: until then the gateway has confirmed and the others have published
/// their pads too, and no more. The answer is exact, and the messages are those of any inference.
#[test]
fn servers_that_have_begun_wait_for_the_request() {
    let model = model(1);
    for servers in 2..=4 {
        let parties = cluster(&model, servers, &paper_placements(4, servers, 1), 3);
        let x = input(&model, 1);
        let (_, usual) = common::run(&parties, 1, &x);
        let keys = session(servers, 2);
        let asked = AtomicBool::new(false);
        let request = |sent: &[Transcript]| {
            let words = confirmation(&bundle_id(2), &usage(9, 2));
            for (server, sent) in waiting(sent).into_iter().enumerate() {
                let (confirmed, published) = sent.split_at(servers - 1);
                assert!(confirmed.iter().all(|(_, sent)| *sent == words), "n={servers}, server {server}");
                let publications = if server == 0 { 0 } else { servers - 1 };
                assert_eq!(published.len(), publications, "n={servers}, server {server}");
                assert!(published.windows(2).all(|two| two[0].1 == two[1].1), "the same to all");
            }
            let mut masked = x.clone();
            keys.iter().for_each(|key| key.apply_input_pad(2, &mut masked).unwrap());
            asked.store(true, Ordering::SeqCst);
            Ok(masked)
        };
        let told = |server: usize| {
            assert!(asked.load(Ordering::SeqCst), "n={servers}: server {server} was told before");
            Ok(())
        };
        let shape = |sent: &Messages| sent.iter().map(|(to, sent)| (*to, sent.len())).collect::<Vec<_>>();
        let mut ended = ahead(&parties, 2, request, told);
        for ((sent, _), usual) in ended.iter().zip(&usual.online) {
            assert_eq!(shape(sent), shape(usual), "n={servers}");
        }
        let mut sum = ended.remove(0).1.unwrap().unwrap();
        assert!(ended.into_iter().all(|(_, ended)| ended.unwrap().is_none()));
        let width = parties[0].architecture().graph.answer_width();
        assert_eq!(unmask(&mut sum, &keys, 2, width), plain(&model, &x), "n={servers}");
    }
}

/// A request that does not come, or that a server does not take up any more: no share of an input leaves.
#[test]
fn without_the_request_no_share_leaves() {
    let model = model(1);
    let parties = cluster(&model, SERVERS, &paper_placements(4, SERVERS, 1), 3);
    let told = |server: usize| -> Result<(), Error> { panic!("server {server} was told of a request") };
    let withdrawn = |sent: &[Transcript]| {
        waiting(sent);
        Err(Error::Misuse("no request"))
    };
    for (server, (sent, ended)) in ahead(&parties, 1, withdrawn, told).into_iter().enumerate() {
        assert_eq!(sent.len(), if server == 0 { SERVERS - 1 } else { 2 * (SERVERS - 1) }, "server {server}");
        let error = ended.unwrap_err();
        assert!(matches!(error, Error::Channel(_) | Error::Misuse("no request")), "server {server}: {error}");
    }
    let x = input(&model, 1);
    let refuses = |server: usize| if server == 1 { Err(Error::Misuse("too late")) } else { Ok(()) };
    let (sent, ended) = ahead(&parties, 2, |_| Ok(x.clone()), refuses).swap_remove(1);
    assert_eq!(sent.len(), 2 * (SERVERS - 1), "server 1 went on");
    assert!(matches!(ended.unwrap_err(), Error::Misuse("too late")));
}

/// Who has the request and who is told of it is not a matter of choice.
#[test]
fn the_request_comes_to_the_gateway_alone() {
    let model = model(1);
    let parties = cluster(&model, 2, &paper_placements(4, 2, 1), 3);
    let (bundles, _) = preprocess(&parties, 1);
    let channels = memory::network(2, SHORT);
    let keys = session(2, 1);
    let x = input(&model, 1);
    let ended =
        all(parties.iter().zip(bundles).zip(channels).collect(), |i, ((party, bundle), mut channel)| {
            let confirmed = bundle.confirm(party.planned(), &mut channel)?;
            let request: (&mut dyn FnMut() -> _, &mut dyn FnMut() -> _) =
                (&mut || Ok(()), &mut || Ok(x.clone()));
            let request = if i == 0 { Request::Told(request.0) } else { Request::Input(request.1) };
            confirmed.infer(party.planned(), &mut channel, &keys[i], request)
        });
    assert!(ended.into_iter().all(|ended| matches!(ended, Err(Error::Misuse(_)))));
}
