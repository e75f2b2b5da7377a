//! Bundles on disk: they outlive their servers, and none is used twice whatever is put back.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{Device, Server, Site, copy, digits};
use seco_node::config::Pool;
use seco_node::operation::events::Event;

const SERVERS: usize = 3;
const POOL: usize = 6;

/// The bundles of a server, by name.
fn bundles(state: &Path) -> HashSet<PathBuf> {
    // In a folder for each model, of which there is one.
    let list = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let folders = list(state.join("bundles")).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| list(folder).collect::<Vec<_>>());
    files.filter(|path| path.extension().is_some_and(|e| e == "bundle")).collect()
}

/// What the ledger of a server says was spent, in order: bundle, and session, incarnation and number.
fn spent(state: &Path) -> Vec<([u8; 16], [u8; 40])> {
    const RECORD: usize = 65;
    let bytes = fs::read(state.join("ledger")).unwrap();
    let records = bytes[16..].chunks_exact(RECORD).filter(|record| record[0] == 3);
    records.map(|record| (record[1..17].try_into().unwrap(), record[17..57].try_into().unwrap())).collect()
}

/// The bundles of a server that was killed, without those that it spent just before: their files may still be there, for
/// a thread of its own destroys them.
fn unspent(state: &Path) -> HashSet<PathBuf> {
    let hex = |id: [u8; 16]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let spent: HashSet<String> = spent(state).into_iter().map(|(id, _)| hex(id)).collect();
    let left = bundles(state).into_iter();
    left.filter(|path| !spent.contains(path.file_stem().unwrap().to_str().unwrap())).collect()
}

/// A cluster that makes no bundle as long as one is left.
struct Cluster {
    site: Site,
    servers: Vec<Server>,
    states: Vec<PathBuf>,
    seed: u8,
}

impl Cluster {
    fn new() -> Cluster {
        let mut site = Site::new(SERVERS);
        site.pool = Pool { size: POOL, low: 0, ..Pool::default() };
        let states = (0..SERVERS).map(|index| site.config(index).state).collect();
        Cluster { site, servers: Vec::new(), states, seed: 0 }
    }

    /// Starts all servers, which have crashed or never ran, and connects a device.
    async fn start(&mut self) -> Device {
        let (servers, address) = self.site.start_all();
        self.servers = servers;
        self.servers[0].wait_ready();
        self.settle().await;
        self.site.connect(address).await
    }

    /// Leaves the gateway the time to see how many bundles there are, before one is taken.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    async fn wait_full(&mut self) {
        for server in &mut self.servers {
            server.wait("a full pool", |event| match event {
                Event::Bundle { pool, .. } if pool == POOL => Some(()),
                _ => None,
            });
        }
        self.settle().await;
    }

    fn crash(&mut self) {
        for server in &mut self.servers {
            server.signal("-KILL");
            let _ = server.process.wait();
        }
    }

    /// Ends all servers as an operator does.
    fn stop(&mut self) {
        for server in &mut self.servers {
            server.signal("-TERM");
            assert!(server.ended(Duration::from_secs(20)).success());
        }
    }

    /// Asks for the first digits; every answer is right.
    async fn ask(&mut self, device: &Device, count: usize) {
        self.seed += 1;
        let mut opened = device.open(&self.site.session(self.seed), &self.site.sealing_keys()).await.unwrap();
        for digit in &digits()[..count] {
            assert_eq!(device.infer(&mut opened, digit).await.unwrap(), self.site.expected(digit));
        }
    }

    /// No bundle and no request is twice in a ledger, and all ledgers tell the same.
    fn check_ledgers(&self, count: usize) {
        let mut ledgers = self.states.iter().map(|state| spent(state));
        let first = ledgers.next().unwrap();
        assert_eq!(first.len(), count);
        assert_eq!(first.iter().map(|(bundle, _)| bundle).collect::<HashSet<_>>().len(), count);
        assert_eq!(first.iter().map(|(_, usage)| usage).collect::<HashSet<_>>().len(), count);
        let first: HashSet<_> = first.into_iter().collect();
        assert!(ledgers.all(|other| other.into_iter().collect::<HashSet<_>>() == first));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_outlive_a_crash_of_all_servers_and_none_comes_back() {
    let mut cluster = Cluster::new();
    cluster.start().await;
    cluster.wait_full().await;
    cluster.crash();
    let made: Vec<_> = cluster.states.iter().map(|state| bundles(state)).collect();
    assert!(made.iter().all(|bundles| bundles.len() == POOL));
    let copies: Vec<Vec<(PathBuf, Vec<u8>)>> =
        made.iter().map(|files| files.iter().map(|f| (f.clone(), fs::read(f).unwrap())).collect()).collect();

    // What was made before is used after it.
    let device = cluster.start().await;
    cluster.ask(&device, POOL - 1).await;
    cluster.crash();
    for (state, made) in cluster.states.iter().zip(&made) {
        let left = unspent(state);
        assert_eq!(left.intersection(made).count(), 1, "{left:?}");
    }
    cluster.check_ledgers(POOL - 1);

    // All files come back on all servers, as from a copy of their folders: only the one that was left is used.
    for (path, bytes) in copies.iter().flatten() {
        fs::write(path, bytes).unwrap();
    }
    let device = cluster.start().await;
    for (state, made) in cluster.states.iter().zip(&made) {
        assert_eq!(bundles(state).intersection(made).count(), 1);
    }
    cluster.ask(&device, 3).await;
    cluster.crash();
    cluster.check_ledgers(POOL - 1 + 3);
}

/// A bundle that only some servers have, a damaged one, one of other servers: they go, and requests do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_whole_everywhere_is_not_used() {
    let mut cluster = Cluster::new();
    cluster.start().await;
    cluster.wait_full().await;
    cluster.crash();
    let files = |server: usize| {
        let mut files: Vec<_> = bundles(&cluster.states[server]).into_iter().collect();
        files.sort();
        files
    };
    // By name the same bundles are at the same places everywhere.
    let [gateway, first, second] = [0, 1, 2].map(files);
    fs::remove_file(&first[0]).unwrap();
    let torn = fs::read(&second[1]).unwrap();
    fs::write(&second[1], &torn[..torn.len() / 2]).unwrap();
    fs::rename(&gateway[2], gateway[2].with_extension("part")).unwrap();
    fs::write(cluster.states[1].join("bundles/not a bundle"), "").unwrap();
    let device = cluster.start().await;
    for (state, before) in cluster.states.iter().zip([&gateway, &first, &second]) {
        let before: HashSet<PathBuf> = before.iter().cloned().collect();
        assert_eq!(bundles(state).intersection(&before).count(), 3);
    }
    cluster.ask(&device, 2).await;
    cluster.crash();
    cluster.check_ledgers(2);
}

/// One machine is set back, its ledger's head beside the keys too: the others notice, and no bundle of before is used.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_set_back_is_named_by_the_others() {
    let mut cluster = Cluster::new();
    let device = cluster.start().await;
    cluster.wait_full().await;
    cluster.ask(&device, 2).await;
    cluster.crash();
    let (state, head) =
        (cluster.states[1].clone(), cluster.site.config(1).ledger_heads(&cluster.site.model_id).own);
    let image = cluster.site.folder.path().join("image");
    copy(&state, &image);
    fs::copy(&head, image.join("head")).unwrap();

    let device = cluster.start().await;
    cluster.ask(&device, 2).await;
    cluster.stop();
    let left = unspent(&state);
    let before: Vec<_> = spent(&cluster.states[0]).into_iter().map(|(bundle, _)| bundle).collect();
    assert_eq!(before.len(), 4);
    fs::remove_dir_all(&state).unwrap();
    copy(&image, &state);
    fs::rename(state.join("head"), &head).unwrap();
    // By its own ledger, two bundles could be used that the others have spent.
    let back = unspent(&state);
    assert!(back.difference(&left).count() >= 2, "{back:?} {left:?}");

    let device = cluster.start().await;
    cluster.ask(&device, 1).await;
    for state in &cluster.states {
        let names = |files: &HashSet<PathBuf>| -> HashSet<_> {
            files.iter().map(|path| path.file_name().unwrap().to_owned()).collect()
        };
        // A thread of its own destroys them.
        let end = Instant::now() + Duration::from_secs(10);
        while !names(&bundles(state)).is_disjoint(&names(&left)) {
            assert!(Instant::now() < end, "bundles of before are there: {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for index in [0, 2] {
        let told = cluster.servers[index].stderr();
        assert!(told.contains("server 1 (s1) was set back: its ledger had 4 entries and has 2"), "{told}");
    }
    cluster.crash();
    // The era that begins then has this one spend; its bundle is none of before.
    let after: Vec<_> = spent(&cluster.states[0]).into_iter().map(|(bundle, _)| bundle).collect();
    assert!(after.len() == 1 && !before.contains(&after[0]), "{after:?}");
}
