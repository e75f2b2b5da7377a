//! The extension over an ideal dealer of base OTs and over the real ones.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::*;
use crate::{BaseSender, base_receive};

fn generator(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

/// Ideal base OT: random pairs, and of each the one that a bit of `Δ` chooses.
fn deal(delta: &Delta, rng: &mut ChaCha20Rng) -> (Vec<[Block; 2]>, Vec<Block>) {
    let pairs: Vec<_> = (0..BASE).map(|_| [Block::random(rng), Block::random(rng)]).collect();
    let choices = delta.choices();
    let seeds = pairs.iter().enumerate().map(|(i, pair)| pair[usize::from(choices.get(i))]).collect();
    (pairs, seeds)
}

fn connect(parameter: usize, rng: &mut ChaCha20Rng) -> (CotReceiver, CotSender, Delta) {
    let delta = Delta::random(rng);
    let (pairs, seeds) = deal(&delta, rng);
    let (receiver, setup) = CotReceiver::new(pairs, parameter).unwrap();
    assert_eq!(setup.len(), 4096 - 4096 / parameter);
    let sender = CotSender::new(&delta, seeds, parameter, &setup).unwrap();
    (receiver, sender, delta)
}

fn assert_correlated(receiver: &Macs, sender: &Keys, choices: &Bits, delta: &Delta) {
    assert_eq!([receiver.len(), sender.len()], [choices.len(); 2]);
    for (i, (m, k)) in receiver.blocks().iter().zip(sender.blocks()).enumerate() {
        assert!(m.0 == (*k ^ delta.block().select(choices.mask(i))).0, "{i}");
    }
}

#[test]
fn correlation_holds_for_all_parameters_and_counts() {
    let mut rng = generator(40);
    for parameter in PARAMETERS {
        let (mut receiver, mut sender, delta) = connect(parameter, &mut rng);
        let mut seen = std::collections::HashSet::new();
        for count in [1, 127, 128, 129, 0, 1023, 1024, 1025, 5000, 3] {
            let choices = Bits::random(count, &mut rng);
            let (mut m, mut k) = (Macs::zeros(count), Keys::zeros(count));
            let message = receiver.extend(&choices, &mut m).unwrap();
            assert_eq!(message.len(), message_len(count, parameter));
            sender.extend(&message, &mut k).unwrap();
            assert_correlated(&m, &k, &choices, &delta);
            // No stream position comes twice.
            assert!(m.blocks().iter().all(|m| seen.insert(m.0)));
        }
    }
}

/// The receiver's ends come again from its seeds, in any order.
#[test]
fn ends_are_made_again() {
    let mut rng = generator(45);
    for parameter in PARAMETERS {
        let (mut receiver, _, _) = connect(parameter, &mut rng);
        let mut all = Vec::new();
        for count in [1, 128, 129, 3000, 64] {
            let (position, mut macs) = (receiver.position(), Macs::zeros(count));
            receiver.extend(&Bits::random(count, &mut rng), &mut macs).unwrap();
            all.push((position, macs));
        }
        let replay = receiver.into_replay();
        let stored = Replay::new(replay.parameter(), Zeroizing::new(replay.seeds().to_vec())).unwrap();
        let mut again = stored.start();
        for (position, macs) in all.into_iter().rev() {
            let mut out = Macs::zeros(macs.len());
            again.macs(position, &mut out);
            let mut pairs = out.blocks().iter().zip(macs.blocks());
            assert!(pairs.all(|(again, mac)| again.0 == mac.0), "parameter {parameter}");
        }
        assert!(Replay::new(parameter, Zeroizing::new(vec![Block::ZERO; 3])).is_err());
    }
    assert!(Replay::new(3, Zeroizing::default()).is_err());
}

#[test]
fn random_ots_match_where_chosen_only() {
    let mut rng = generator(41);
    for parameter in PARAMETERS {
        let (mut receiver, mut sender, _) = connect(parameter, &mut rng);
        let mut seen = std::collections::HashSet::new();
        for count in [128, 1, 5000, 0, 300] {
            // Correlated ones in between: both kinds share the positions.
            let one = receiver.extend(&Bits::zeros(1), &mut Macs::zeros(1)).unwrap();
            sender.extend(&one, &mut Keys::zeros(1)).unwrap();

            let choices = Bits::random(count, &mut rng);
            let (chosen, message) = receiver.extend_random(&choices).unwrap();
            let pairs = sender.extend_random(&message, count).unwrap();
            assert_eq!((chosen.len(), pairs.len()), (count, count));
            for (i, (pair, chosen)) in pairs.iter().zip(&chosen).enumerate() {
                let choice = usize::from(choices.get(i));
                assert!(pair[choice].0 == chosen.0 && pair[1 - choice].0 != chosen.0, "{i}");
                assert!(seen.insert(pair[0].0) && seen.insert(pair[1].0), "{i}");
            }
        }
    }
}

/// A bundle's extension from a long-lived one, as the protocol has it: base OT, random OTs chosen by a fresh
/// `Δ`, extension.
#[test]
fn extension_seeds_an_extension() {
    let mut rng = generator(42);
    let long_lived = Delta::random(&mut rng);
    let (base, offer) = BaseSender::new(&mut rng);
    let (seeds, reply) = base_receive(&long_lived.choices(), &offer, &mut rng).unwrap();
    let pairs = base.finish(&reply, BASE).unwrap();
    let (mut receiver, setup) = CotReceiver::new(pairs, 2).unwrap();
    let mut sender = CotSender::new(&long_lived, seeds, 2, &setup).unwrap();

    // The long-lived receiver becomes the bundle's sender: it chose the seeds.
    let delta = Delta::random(&mut rng);
    let (seeds, message) = receiver.extend_random(&delta.choices()).unwrap();
    let pairs = sender.extend_random(&message, BASE).unwrap();
    let (mut receiver, setup) = CotReceiver::new(pairs, 4).unwrap();
    let mut sender = CotSender::new(&delta, seeds, 4, &setup).unwrap();

    let choices = Bits::random(700, &mut rng);
    let (mut m, mut k) = (Macs::zeros(700), Keys::zeros(700));
    let message = receiver.extend(&choices, &mut m).unwrap();
    sender.extend(&message, &mut k).unwrap();
    assert_correlated(&m, &k, &choices, &delta);
}

/// Bytes of both directions and outputs under fixed seeds: the wire format and the streams do not change
/// unnoticed.
#[test]
fn transcripts_are_frozen() {
    let frozen = [
        "5706b8952d4335ea17bd21b80f904770",
        "9869dadd4ea987b41d94ca703ee0e393",
        "2ebff81af4008f9d4f368ba3718cc8b9",
        "051aa5fc75930f6134713b905ccb6c27",
    ];
    for (parameter, frozen) in PARAMETERS.into_iter().zip(frozen) {
        let mut rng = generator(43);
        let delta = Delta::random(&mut rng);
        let (pairs, seeds) = deal(&delta, &mut rng);
        let (mut receiver, setup) = CotReceiver::new(pairs, parameter).unwrap();
        let mut sender = CotSender::new(&delta, seeds, parameter, &setup).unwrap();
        let choices = Bits::random(1500, &mut rng);
        let (mut m, mut k) = (Macs::zeros(1500), Keys::zeros(1500));
        let message = receiver.extend(&choices, &mut m).unwrap();
        sender.extend(&message, &mut k).unwrap();
        let (chosen, second) = receiver.extend_random(&choices).unwrap();
        let pairs = sender.extend_random(&second, 1500).unwrap();
        let digest = Sha256::new()
            .chain_update(setup)
            .chain_update(message)
            .chain_update(bytemuck::cast_slice::<_, u8>(m.blocks()))
            .chain_update(bytemuck::cast_slice::<_, u8>(k.blocks()))
            .chain_update(second)
            .chain_update(bytemuck::cast_slice::<_, u8>(&chosen))
            .chain_update(bytemuck::cast_slice::<_, u8>(&pairs))
            .finalize();
        assert_eq!(crate::hex(&digest[..16]), frozen, "{parameter}");
    }
}

/// Whatever the choices, the message looks uniform: its bytes, and its bits against the choices.
#[test]
fn choices_do_not_show_in_the_message() {
    let mut rng = generator(44);
    let count = 1 << 17;
    let all = |bit| Bits::from_words(vec![if bit { u64::MAX } else { 0 }; count / 64], count);
    for parameter in PARAMETERS {
        for choices in [all(false), all(true), Bits::random(count, &mut rng)] {
            let (mut receiver, ..) = connect(parameter, &mut rng);
            let message = receiver.extend(&choices, &mut Macs::zeros(count)).unwrap();

            let mut histogram = [0_u32; 256];
            message.iter().for_each(|byte| histogram[usize::from(*byte)] += 1);
            let mean = message.len() as f64 / 256.0;
            let chi: f64 = histogram.iter().map(|n| (f64::from(*n) - mean).powi(2) / mean).sum();
            // 255 degrees of freedom: mean 255, standard deviation 22.6.
            assert!(chi < 255.0 + 6.0 * 22.6, "{parameter} {chi}");

            // Agreement with the choices, row by row of every tile: half of the bits.
            let mut agree = 0_u64;
            let (mut rows, trees) = (message.as_slice(), BASE / parameter);
            for words in choices.words().chunks(2 * LANES) {
                for _ in 0..trees {
                    let (row, rest) = rows.split_at(size_of_val(words));
                    let row = row.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b));
                    agree += row.zip(words).map(|(r, c)| u64::from((!(r ^ c)).count_ones())).sum::<u64>();
                    rows = rest;
                }
            }
            let bits = 8.0 * message.len() as f64;
            assert!((agree as f64 - bits / 2.0).abs() < 6.0 * (bits / 4.0).sqrt(), "{parameter} {agree}");
        }
    }
}

/// Keys are uniform whatever the choices: each bit of `K` and of `M` is set about half of the time.
#[test]
fn keys_are_balanced() {
    let mut rng = generator(45);
    let count = 20_000;
    for parameter in PARAMETERS {
        let (mut receiver, mut sender, _) = connect(parameter, &mut rng);
        let (mut m, mut k) = (Macs::zeros(count), Keys::zeros(count));
        let message = receiver.extend(&Bits::zeros(count), &mut m).unwrap();
        sender.extend(&message, &mut k).unwrap();
        for bit in 0..128 {
            let ones = k.blocks().iter().filter(|k| k.0 >> bit & 1 == 1).count();
            // Standard deviation 71.
            assert!(ones.abs_diff(count / 2) < 6 * 71, "{parameter} {bit} {ones}");
        }
    }
}

#[test]
fn wrong_lengths_are_refused_and_change_nothing() {
    let mut rng = generator(46);
    for parameter in PARAMETERS {
        let (mut receiver, mut sender, delta) = connect(parameter, &mut rng);
        let choices = Bits::random(300, &mut rng);
        let (mut m, mut k) = (Macs::zeros(300), Keys::zeros(300));
        let message = receiver.extend(&choices, &mut m).unwrap();
        let too_long = [&message[..], &[0; 16]].concat();
        for bad in [&[], &message[..message.len() - 1], &message[..message.len() - 16], &too_long] {
            assert!(matches!(sender.extend(bad, &mut k), Err(Error::Length { .. })));
            assert!(matches!(sender.extend_random(bad, 300), Err(Error::Length { .. })));
        }
        assert!(matches!(sender.extend_random(&message, usize::MAX), Err(Error::Length { .. })));
        assert!(k.blocks().iter().all(|k| k.0 == 0));
        sender.extend(&message, &mut k).unwrap();
        assert_correlated(&m, &k, &choices, &delta);
        assert!(matches!(receiver.extend(&choices, &mut Macs::zeros(299)), Err(Error::Arguments { .. })));
    }
}

/// Well-formed garbage is no error (the adversary is passive), but it must not stop the program.
#[test]
fn garbage_is_survived() {
    let mut rng = generator(47);
    for parameter in PARAMETERS {
        let delta = Delta::random(&mut rng);
        let (_, seeds) = deal(&delta, &mut rng);
        let mut setup = vec![0; 4096 - 4096 / parameter];
        rng.fill_bytes(&mut setup);
        let mut sender = CotSender::new(&delta, seeds, parameter, &setup).unwrap();
        let mut message = vec![0; message_len(1000, parameter)];
        rng.fill_bytes(&mut message);
        sender.extend(&message, &mut Keys::zeros(1000)).unwrap();
        assert_eq!(sender.extend_random(&message, 1000).unwrap().len(), 1000);
    }
}

#[test]
fn set_up_is_checked() {
    let mut rng = generator(48);
    let delta = Delta::random(&mut rng);
    let (pairs, seeds) = deal(&delta, &mut rng);
    for parameter in [0, 3, 5, 16, 128, usize::MAX] {
        assert_eq!(CotReceiver::new(pairs.clone(), parameter).err(), Some(Error::Parameter(parameter)));
        assert_eq!(
            CotSender::new(&delta, seeds.clone(), parameter, &[]).err(),
            Some(Error::Parameter(parameter))
        );
    }
    assert_eq!(message_len(128, 0), 0);
    assert_eq!(message_len(usize::MAX, 1), usize::MAX);
    assert!(matches!(CotReceiver::new(pairs[1..].to_vec(), 2), Err(Error::Arguments { .. })));
    for parameter in PARAMETERS {
        let (_, setup) = CotReceiver::new(pairs.clone(), parameter).unwrap();
        let new =
            |seeds: &[Block], setup: &[u8]| CotSender::new(&delta, seeds.to_vec(), parameter, setup).err();
        assert_eq!(new(&seeds, &setup), None);
        assert!(matches!(new(&seeds[..127], &setup), Some(Error::Arguments { .. })));
        assert!(matches!(new(&seeds, &[&setup[..], &[0]].concat()), Some(Error::Length { .. })));
        if let Some((_, short)) = setup.split_last() {
            assert!(matches!(new(&seeds, short), Some(Error::Length { .. })));
        }
    }
}
