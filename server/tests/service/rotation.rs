//! Certificates of servers are replaced one server after the other, while a device keeps asking.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::asking::Asking;
use crate::common::{Server, Site, copy};
use seco_node::config::Pool;
use seco_node::keys;
use seco_node::operation::events::Event;
use seco_tools::split::{self, DeploymentOptions};

/// Bundles that there are whenever a server is stopped.
const ENOUGH: usize = 4;
/// The device's, longer than a bundle takes to be made, so that they do not become fewer and fewer.
const PAUSE: Duration = Duration::from_millis(400);

/// A cluster whose servers are restarted with what its settings are by then.
struct Cluster {
    site: Site,
    servers: Vec<Server>,
    device: SocketAddr,
    told: String,
}

impl Cluster {
    fn stop(&mut self, index: usize) {
        self.told += &self.servers[index].stop();
    }

    fn start(&mut self, index: usize) {
        let mut config = self.site.config(index);
        if index == 0 {
            config.listen.device = Some(self.device);
        }
        self.servers[index] = Server::start(&self.site.write(&config), &[]);
        self.servers[index].wait_ready();
        // The device goes on using what was made before, also while the cluster is set up, and what is being made when a
        // server stops is lost: the next one is not stopped before there are some again.
        self.servers[index].wait("bundles", |event| match event {
            Event::Bundle { pool, .. } if pool >= ENOUGH => Some(()),
            _ => None,
        });
    }

    fn restart(&mut self, index: usize) {
        self.stop(index);
        self.start(index);
    }
}

fn joined(files: &[&Path], out: PathBuf) -> PathBuf {
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    std::fs::write(&out, text).unwrap();
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_a_device_keeps_asking() {
    let mut site = Site::new(3);
    site.pool = Pool { size: 2 * ENOUGH, low: 2 * ENOUGH - 1, ..Pool::default() };
    let (servers, device) = site.start_all();
    let mut cluster = Cluster { site, servers, device, told: String::new() };
    (0..cluster.site.pool.size).for_each(|_| cluster.servers[0].wait_bundle());
    let folder = cluster.site.folder.path().to_owned();

    // The gateway's and the last remote's; the device's file has both pins of the gateway before anything is changed.
    let rotating = [0, 2];
    let old: Vec<_> = rotating.iter().map(|&index| cluster.site.keys[index].clone()).collect();
    let new = rotating.map(|index| keys::generate(&folder.join("new"), &format!("s{index}")).unwrap());
    let both: Vec<_> = (0..2)
        .map(|i| joined(&[&old[i].certificate, &new[i].certificate], folder.join(format!("both-{i}.pem"))))
        .collect();
    let options = DeploymentOptions {
        certificate: both[0].clone(),
        ..cluster.site.deployment_options(device, "deployment.toml")
    };
    let deployment = split::deployment(&options).unwrap();
    assert_eq!(deployment.gateway.pins.len(), 2);

    let asking = Asking::every(PAUSE, &cluster.site, deployment);

    let (state, head) =
        (cluster.site.config(2).state, cluster.site.config(2).ledger_heads(&cluster.site.model_id).own);
    let image = folder.join("image");
    let (mut cluster, asking, state, head, image) = tokio::task::spawn_blocking(move || {
        // All accept the next ones, too.
        for (i, &index) in rotating.iter().enumerate() {
            cluster.site.pinned[index].clone_from(&both[i]);
        }
        (0..2).for_each(|index| cluster.restart(index));
        cluster.stop(2);
        copy(&state, &image);
        std::fs::copy(&head, image.join("head")).unwrap();
        cluster.start(2);
        // Their owners show them.
        for (i, &index) in rotating.iter().enumerate() {
            cluster.site.known_as[index] = Some(old[i].certificate.clone());
            cluster.site.keys[index].certificate.clone_from(&new[i].certificate);
            cluster.site.keys[index].key.clone_from(&new[i].key);
            cluster.restart(index);
        }
        // These accept the old ones no more.
        for (i, &index) in rotating.iter().enumerate() {
            cluster.site.pinned[index].clone_from(&new[i].certificate);
        }
        [0, 2].into_iter().for_each(|index| cluster.restart(index));
        asking.more();
        (cluster, asking, state, head, image)
    })
    .await
    .unwrap();
    asking.stop().await;

    // It is one cluster all the time: its bundles outlive all of it.
    let kept = |line: &&str| line.contains("bundles of before") && !line.contains("ready=0");
    assert!(cluster.told.lines().filter(kept).count() >= 3, "{}", cluster.told);
    assert!(!cluster.told.contains("set back"), "{}", cluster.told);
    // And its servers are the same: one that is set back while the last other forgets its old certificate is known.
    cluster.stop(2);
    std::fs::remove_dir_all(&state).unwrap();
    copy(&image, &state);
    std::fs::rename(state.join("head"), &head).unwrap();
    cluster.stop(1);
    for index in [1, 2] {
        cluster.servers[index] = Server::start(&cluster.site.write(&cluster.site.config(index)), &[]);
    }
    cluster.servers[1].wait_ready();

    // Whoever has the old key gets in nowhere, dialled or dialling.
    for (index, told) in [(2, "refused a connection"), (0, "refuses this server's certificate")] {
        cluster.stop(index);
        let mut config = cluster.site.config(index);
        config.identity.certificate = config.identity.known_as.clone().unwrap();
        config.identity.key = folder.join("keys").join(format!("s{index}.key.pem"));
        let mut thief = Server::start(&cluster.site.write(&config), &[]);
        thief.wait("sockets", |event| matches!(event, Event::Listening { .. }).then_some(()));
        thief.wait_told(told);
        // One that refuses is not all: it tries again, with every server.
        std::thread::sleep(Duration::from_secs(2));
        let text = thief.stderr();
        assert!(!text.contains("ready: serves"), "{text}");
    }
    let told = cluster.servers[1].stderr();
    assert!(told.contains("server 2 (s2) was set back"), "{told}");
}
