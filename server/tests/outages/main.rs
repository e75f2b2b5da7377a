//! Servers that are killed, or stand still, at any time, under devices that keep asking: no wrong answer, no request
//! that never ends, nothing used twice, and service again soon after the server is back.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod devices;
mod kills;
mod stops;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use common::{Server, Site, ledgers};
use devices::Devices;
use seco_node::config::Pool;

/// A device is served again so soon after a server is back; the machine may be slow.
const SOON: Duration = Duration::from_secs(3);
const MARGIN: Duration = Duration::from_secs(5);

/// Three servers and the devices that ask them.
struct Outages {
    servers: Vec<Server>,
    /// Settings with which a server is started again.
    configs: Vec<PathBuf>,
    states: Vec<PathBuf>,
    devices: Devices,
    /// Its folder goes with it.
    _site: Arc<Site>,
}

impl Outages {
    fn start() -> Outages {
        let mut site = Site::new(3);
        site.pool = Pool { size: 40, low: 30, ..Pool::default() };
        let (mut servers, address) = site.start_all();
        servers[0].wait_bundle();
        let deployment = site.deployment(address);
        let configs = (0..3).map(|index| {
            let mut config = site.config(index);
            config.listen.device = (index == 0).then_some(address);
            site.write(&config)
        });
        let (configs, states) = (configs.collect(), (0..3).map(|index| site.config(index).state).collect());
        let site = Arc::new(site);
        let devices = Devices::start(&deployment, &site);
        Outages { servers, configs, states, devices, _site: site }
    }

    /// Stops the devices, then the servers, and looks at what all ledgers say. Gives what devices were told.
    async fn end(mut self) -> Vec<String> {
        let told = self.devices.end().await;
        for server in &mut self.servers {
            server.signal("-KILL");
            let _ = server.process.wait();
        }
        ledgers::nothing_is_used_twice(&self.states);
        told
    }
}

impl Drop for Outages {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.servers.iter_mut().for_each(|server| println!("{}", server.stderr()));
        }
    }
}
