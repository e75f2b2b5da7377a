//! Views: everything that a server draws its randomness from, sends and receives in a set-up, a bundle
//! and an inference. A coalition has its members' views and all that it can compute from them.

use super::*;

/// The messages of one channel as its server saw them: (peer, bytes), in order.
#[derive(Clone, Default)]
pub struct Log {
    pub sent: Messages,
    pub received: Messages,
}

/// One server's view.
#[derive(Clone)]
pub struct View {
    pub setup_seed: [u8; 32],
    pub bundle_seed: [u8; 32],
    pub setup: Log,
    /// Preprocessing of linear layers.
    pub linear: Log,
    /// Preprocessing of all others.
    pub nonlinear: Log,
    pub online: Log,
}

impl View {
    /// Messages sent while a bundle was made and used.
    pub fn sent_in_bundle(&self) -> impl Iterator<Item = &(usize, Vec<u8>)> {
        self.linear.sent.iter().chain(&self.nonlinear.sent).chain(&self.online.sent)
    }
}

/// A cluster with every server's view.
pub struct World {
    pub parties: Vec<Party>,
    pub views: Vec<View>,
    setup_seeds: Vec<[u8; 32]>,
}

/// Runs `work` over a recorded channel.
fn recorded<C: Channel, T>(channel: C, work: impl FnOnce(&mut dyn Channel) -> T) -> (T, Log) {
    let mut channel = Recorder { inner: channel, log: Log::default() };
    let value = work(&mut channel);
    (value, channel.log)
}

struct Recorder<C> {
    inner: C,
    log: Log,
}

impl<C: Channel> Channel for Recorder<C> {
    fn me(&self) -> usize {
        self.inner.me()
    }

    fn parties(&self) -> usize {
        self.inner.parties()
    }

    fn send(&mut self, to: usize, message: Vec<u8>) -> Result<(), ChannelError> {
        self.log.sent.push((to, message.clone()));
        self.inner.send(to, message)
    }

    fn recv(&mut self, from: usize, max: usize) -> Result<Vec<u8>, ChannelError> {
        let message = self.inner.recv(from, max)?;
        self.log.received.push((from, message.clone()));
        Ok(message)
    }
}

impl World {
    /// Splits the model and sets the cluster up; `number` decides all seeds.
    pub fn new(model: &FixedModel, placements: &[Placement], servers: usize, number: u64) -> World {
        let parts = parts(model, servers, placements, number);
        let channels = memory::network(servers, LIMIT);
        let made = all(parts.into_iter().zip(channels).collect(), |i, (part, channel)| {
            recorded(channel, |channel| {
                Party::setup(
                    PlannedModel::new(part).unwrap(),
                    channel,
                    &vec![OT_PARAMETER; servers],
                    seed(number, i),
                )
                .unwrap()
            })
        });
        let setup_seeds: Vec<_> = (0..servers).map(|i| seed(number, i)).collect();
        let (parties, logs): (Vec<_>, Vec<_>) = made.into_iter().unzip();
        let views = logs.into_iter().zip(&setup_seeds).map(|(setup, &setup_seed)| View {
            setup_seed,
            bundle_seed: [0; 32],
            setup,
            linear: Log::default(),
            nonlinear: Log::default(),
            online: Log::default(),
        });
        World { parties, views: views.collect(), setup_seeds }
    }

    pub fn servers(&self) -> usize {
        self.parties.len()
    }

    /// Makes a bundle from one seed for each server; views of the one before are overwritten.
    pub fn preprocess(&mut self, id: BundleId, seeds: &[[u8; 32]]) -> Vec<SpentBundle> {
        let lanes: Vec<_> = memory::network(self.servers(), LIMIT)
            .into_iter()
            .zip(memory::network(self.servers(), LIMIT))
            .collect();
        let index = self.parties[0].next_bundle();
        let made = all(self.parties.iter().zip(lanes).collect(), |i, (party, (linear, nonlinear))| {
            let ((bundle, linear), nonlinear) = recorded(nonlinear, |nonlinear| {
                recorded(linear, |linear| {
                    let spool = Box::new(MemorySpool::default());
                    let bundle = party.preprocess(id, index, linear, nonlinear, seeds[i], spool).unwrap();
                    bundle.spend(&InsecureMemoryLedger::default(), &usage(9, 0)).unwrap()
                })
            });
            (bundle, linear, nonlinear)
        });
        let mut bundles = Vec::new();
        for (i, (bundle, linear, nonlinear)) in made.into_iter().enumerate() {
            let setup = self.views[i].setup.clone();
            let (setup_seed, online) = (self.setup_seeds[i], Log::default());
            self.views[i] = View { setup_seed, bundle_seed: seeds[i], setup, linear, nonlinear, online };
            bundles.push(bundle);
        }
        bundles
    }

    /// Uses it; the device's counter is 0.
    pub fn infer(&mut self, bundles: Vec<SpentBundle>, keys: &[IncarnationKey], input: &[u8]) {
        let mut masked = input.to_vec();
        keys.iter().for_each(|key| key.apply_input_pad(0, &mut masked).unwrap());
        let channels = memory::network(self.servers(), LIMIT);
        let arguments = self.parties.iter().zip(bundles).zip(channels).collect();
        let logs = all(arguments, |i, ((party, bundle), channel)| {
            let input = (i == 0).then_some(masked.as_slice());
            recorded(channel, |channel| bundle.infer(party.planned(), channel, &keys[i], input).unwrap()).1
        });
        self.views.iter_mut().zip(logs).for_each(|(view, log)| view.online = log);
    }
}
