//! Correlated OT between one server and all others: the long-lived extensions of the cluster and
//! the extensions of one bundle (section 5 of PROTOCOL.md, "Correlated OT").
//!
//! Base OTs are run once per ordered pair, when the cluster is set up. For every bundle each server
//! draws a new `Δ` and uses its bits as the choices of 128 random OTs from the long-lived extension
//! towards every other server; those seed the bundle's own extension, whose sender's delta is `Δ`.
//!
//! # Forward secrecy
//!
//! The long-lived seeds go forward by a hash with every bundle ([`ReceiverSeeds`]), by the bundle's number in the
//! set-up; what belonged to a number is wiped when its 128 OTs are done. So who takes a server's memory later, with all
//! traffic recorded, cannot open the material of bundles made before: neither which `Δ` other servers chose nor the
//! labels and choices of the bundle's extension.
//!
//! What stays exposed: bundles still to be made until the next set-up, whose base OTs are new; bundles that are being
//! made, whose extensions are in memory; numbers passed over while several are made at once, at most [`WINDOW`]; and
//! whatever a server keeps of an unspent bundle, which spending erases.

use rand_core::CryptoRng;
use rayon::prelude::*;
#[cfg(doc)]
use seco_ot::WINDOW;
use seco_ot::{
    BaseSender, Bits, Block, CotReceiver, CotSender, Delta, Keys, Macs, ReceiverSeeds, Replay, SenderSeeds,
    base_receive, message_len, setup_len,
};
use zeroize::Zeroizing;

use crate::channel::Channel;
use crate::error::{Error, from_peer};

/// SoftSpokenOT's parameter where nothing else is said: 8 bytes per correlated OT, the choice for a LAN. A link with
/// parameter `k` (1, 2, 4 or 8) sends `16 / k` bytes and computes more the larger `k` is.
pub const OT_PARAMETER: usize = 2;
/// Base OTs of an extension.
const BASE: usize = 128;
/// Bytes of the first base OT message.
const OFFER: usize = 32;
/// Bytes of the second base OT message.
const REPLY: usize = 32 * BASE;

/// Bytes of a bundle's nonce.
const NONCE: usize = 32;
/// Bytes of a bundle's number.
const NUMBER: usize = 8;

/// Bytes of what one server sends another for a bundle's extensions: its choices with number and nonce, then the set-up
/// of the extension in which it receives.
pub fn bundle_len(parameter: usize) -> [usize; 2] {
    [NONCE + NUMBER + message_len(BASE, parameter), setup_len(parameter)]
}

/// Bytes of what one server sends another for base OTs: an offer, a reply, the set-up of the long-lived extension.
pub fn base_len(parameter: usize) -> [usize; 3] {
    [OFFER, REPLY, setup_len(parameter)]
}

/// What one server contributes to the public random values of a bundle.
pub type Nonce = [u8; NONCE];

/// Where a link was before choices were made, and `M` for each of them.
pub type Chosen = (u64, Macs);

/// Indices of all servers but this one.
pub fn peers(channel: &dyn Channel) -> impl Iterator<Item = usize> + use<> {
    let me = channel.me();
    (0..channel.parties()).filter(move |&p| p != me)
}

/// Seeds of correlated OT with every other server, by index, as long as the cluster's set-up lives.
pub struct LinkSeeds {
    /// This server is the receiver (its choices).
    receivers: Vec<Option<ReceiverSeeds>>,
    /// This server is the sender (its delta).
    senders: Vec<Option<SenderSeeds>>,
    /// After the highest number that was taken.
    next: u64,
}

/// Extensions with every other server, by index; none at this server's own.
pub struct Links {
    /// This server is the receiver (its choices).
    receivers: Vec<Option<CotReceiver>>,
    /// This server is the sender (its delta).
    senders: Vec<Option<CotSender>>,
}

impl LinkSeeds {
    /// Base OTs with every other server, both ways. Three rounds. `parameters` are the links', by server; both
    /// ends of a link have the same.
    pub fn base(
        channel: &mut dyn Channel,
        parameters: &[usize],
        rng: &mut impl CryptoRng,
    ) -> Result<LinkSeeds, Error> {
        const PHASE: &str = "base OT";
        let parameter = |p: usize| parameters.get(p).copied().ok_or(NO_LINK);
        let all: Vec<usize> = peers(channel).collect();
        let mut offers: Vec<Option<BaseSender>> = (0..channel.parties()).map(|_| None).collect();
        for &p in &all {
            // The extension's receiver sends the base OTs.
            let (sender, offer) = BaseSender::new(rng);
            offers[p] = Some(sender);
            channel.send(p, offer)?;
        }
        let mut choices: Vec<Option<(Delta, Zeroizing<Vec<Block>>)>> =
            (0..channel.parties()).map(|_| None).collect();
        for &p in &all {
            let offer = channel.recv(p, OFFER)?;
            let delta = Delta::random(rng);
            let (seeds, reply) = from_peer(base_receive(&delta.choices(), &offer, rng), p, PHASE)?;
            choices[p] = Some((delta, Zeroizing::new(seeds)));
            channel.send(p, reply)?;
        }
        let parties = channel.parties();
        let mut links = LinkSeeds {
            receivers: (0..parties).map(|_| None).collect(),
            senders: (0..parties).map(|_| None).collect(),
            next: 0,
        };
        for &p in &all {
            let reply = channel.recv(p, REPLY)?;
            let Some(sender) = offers[p].take() else { continue };
            let pairs = from_peer(sender.finish(&reply, BASE), p, PHASE)?;
            let (receiver, setup) = ReceiverSeeds::new(pairs, parameter(p)?)?;
            links.receivers[p] = Some(receiver);
            channel.send(p, setup)?;
        }
        for &p in &all {
            let parameter = parameter(p)?;
            let [.., length] = base_len(parameter);
            let setup = channel.recv(p, length)?;
            let Some((delta, mut seeds)) = choices[p].take() else { continue };
            let seeds = std::mem::take(&mut *seeds);
            links.senders[p] = Some(from_peer(SenderSeeds::new(&delta, seeds, parameter, &setup), p, PHASE)?);
        }
        Ok(links)
    }

    /// The first number after all that were taken.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The extensions of bundle number `index`, for [`Links::bundle`] alone; the seeds forget them. A number that was
    /// taken, or is far from the others, is refused.
    pub fn take(&mut self, index: u64) -> Result<Links, Error> {
        let receivers =
            self.receivers.iter_mut().map(|seeds| seeds.as_mut().map(|s| s.take(index)).transpose());
        let receivers = receivers.collect::<Result<_, _>>()?;
        let senders = self.senders.iter_mut().map(|seeds| seeds.as_mut().map(|s| s.take(index)).transpose());
        let senders = senders.collect::<Result<_, _>>()?;
        self.next = self.next.max(index.saturating_add(1));
        Ok(Links { receivers, senders })
    }
}

impl Links {
    /// From the long-lived extensions of bundle number `index`, the extensions for the bundle, with `delta` this
    /// server's offset in it, and everyone's nonce, by server: `nonce` is this server's, and goes with the first
    /// message, which fixes its offset. Two rounds.
    pub fn bundle(
        mut self,
        channel: &mut dyn Channel,
        delta: &Delta,
        index: u64,
        nonce: Nonce,
    ) -> Result<(Links, Vec<Nonce>), Error> {
        const PHASE: &str = "bundle OT";
        let mut nonces = vec![nonce; channel.parties()];
        let all: Vec<usize> = peers(channel).collect();
        let mut links = Links::none(channel.parties());
        let mut seeds = vec![Zeroizing::<Vec<Block>>::default(); channel.parties()];
        for &p in &all {
            let (received, message) = self.receiver(p)?.extend_random(&delta.choices())?;
            *seeds[p] = received;
            channel.send(p, [&nonce[..], &index.to_le_bytes(), &message].concat())?;
        }
        for &p in &all {
            let link = self.sender(p)?;
            let parameter = link.parameter();
            let message = channel.recv(p, bundle_len(parameter)[0])?;
            let invalid = Error::Peer { peer: p, phase: PHASE };
            let Some((theirs, message)) = message.split_first_chunk::<NONCE>() else { return Err(invalid) };
            let Some((number, message)) = message.split_first_chunk::<NUMBER>() else { return Err(invalid) };
            // Another number has other seeds, and what came of them would be noise without a word.
            if u64::from_le_bytes(*number) != index {
                return Err(Error::Peer { peer: p, phase: "bundle OT, another number" });
            }
            nonces[p] = *theirs;
            let pairs = from_peer(link.extend_random(message, BASE), p, PHASE)?;
            let (receiver, setup) = CotReceiver::new(pairs, parameter)?;
            links.receivers[p] = Some(receiver);
            channel.send(p, setup)?;
        }
        for &p in &all {
            let parameter = self.sender(p)?.parameter();
            let setup = channel.recv(p, bundle_len(parameter)[1])?;
            let seeds = std::mem::take(&mut *seeds[p]);
            links.senders[p] = Some(from_peer(CotSender::new(delta, seeds, parameter, &setup), p, PHASE)?);
        }
        Ok((links, nonces))
    }

    fn none(parties: usize) -> Links {
        Links {
            receivers: (0..parties).map(|_| None).collect(),
            senders: (0..parties).map(|_| None).collect(),
        }
    }

    /// Ends them: what is needed to make this server's `M` again, by server.
    pub fn into_replays(self) -> Vec<Option<Replay>> {
        self.receivers.into_iter().map(|link| link.map(CotReceiver::into_replay)).collect()
    }

    fn receiver(&mut self, peer: usize) -> Result<&mut CotReceiver, Error> {
        let link = self.receivers.get_mut(peer).and_then(Option::as_mut);
        link.ok_or(NO_LINK)
    }

    fn sender(&mut self, peer: usize) -> Result<&mut CotSender, Error> {
        let link = self.senders.get_mut(peer).and_then(Option::as_mut);
        link.ok_or(NO_LINK)
    }

    /// Runs the receiver's side for many jobs: the choices of each go to its list of servers. Gives by job and by
    /// server of its list where the link was and `M`, one for every choice. Links work side by side.
    pub fn choose(
        &mut self,
        channel: &mut dyn Channel,
        jobs: &[(Bits, Vec<usize>)],
    ) -> Result<Vec<Vec<Chosen>>, Error> {
        let extend = |(peer, link): (usize, &mut Option<CotReceiver>)| {
            let towards = jobs.iter().filter(|(choices, to)| to.contains(&peer) && !choices.is_empty());
            let extended = towards.map(|(choices, _)| {
                let link = link.as_mut().ok_or(NO_LINK)?;
                let mut macs = Macs::zeros(choices.len());
                let position = link.position();
                let message = link.extend(choices, &mut macs)?;
                Ok(((position, macs), message))
            });
            extended.collect::<Result<Vec<_>, Error>>().map(Vec::into_iter)
        };
        let mut by_peer: Vec<_> =
            self.receivers.par_iter_mut().enumerate().map(extend).collect::<Result<_, _>>()?;
        let mut all = Vec::with_capacity(jobs.len());
        for (choices, to) in jobs {
            let mut ends = Vec::with_capacity(to.len());
            for &peer in to {
                let extended = by_peer.get_mut(peer).filter(|_| !choices.is_empty()).and_then(Iterator::next);
                ends.push(match extended {
                    Some((chosen, message)) => {
                        channel.send(peer, message)?;
                        chosen
                    }
                    None => (0, Macs::default()),
                });
            }
            all.push(ends);
        }
        Ok(all)
    }

    /// Runs the sender's side for many jobs: takes the messages of `count` choices from each `(server,
    /// count)` of a job's list. Gives `K` by job and by server of its list.
    pub fn keys(
        &mut self,
        channel: &mut dyn Channel,
        jobs: &[Vec<(usize, usize)>],
    ) -> Result<Vec<Vec<Keys>>, Error> {
        /// Messages of one peer, each with its number of choices.
        type Messages = Vec<(usize, Vec<u8>)>;
        let mut messages: Vec<Messages> = vec![Vec::new(); self.senders.len()];
        for &(peer, count) in jobs.iter().flatten().filter(|(_, count)| *count > 0) {
            let parameter = self.sender(peer)?.parameter();
            let message = channel.recv(peer, message_len(count, parameter))?;
            messages.get_mut(peer).ok_or(NO_LINK)?.push((count, message));
        }
        let extend = |((peer, link), messages): ((usize, &mut Option<CotSender>), Messages)| {
            let extended = messages.into_iter().map(|(count, message)| {
                let link = link.as_mut().ok_or(NO_LINK)?;
                let mut keys = Keys::zeros(count);
                from_peer(link.extend(&message, &mut keys), peer, "correlated OT")?;
                Ok(keys)
            });
            extended.collect::<Result<Vec<_>, Error>>().map(Vec::into_iter)
        };
        let mut by_peer: Vec<_> =
            self.senders.par_iter_mut().enumerate().zip(messages).map(extend).collect::<Result<_, _>>()?;
        let mut keys = |&(peer, count): &(usize, usize)| match by_peer.get_mut(peer) {
            Some(keys) if count > 0 => keys.next().unwrap_or_default(),
            _ => Keys::default(),
        };
        Ok(jobs.iter().map(|wanted| wanted.iter().map(&mut keys).collect()).collect())
    }
}

const NO_LINK: Error = Error::Misuse("no correlated OT with that server");

#[cfg(test)]
mod tests;
