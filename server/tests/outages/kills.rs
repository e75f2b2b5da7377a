//! Servers that are killed at any time and started again. 20 kills; 200 with `SECO_SLOW=1`.

use std::time::Duration;

use chacha20::rand_core::Rng as _;
use seco_node::operation::events::Event;

use crate::Outages;
use crate::common::{Server, rng};

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time() {
    let rounds = if std::env::var_os("SECO_SLOW").is_some() { 200 } else { 20 };
    let mut outages = Outages::start();
    let mut random = rng(77);
    let mut waits = Vec::new();
    for round in 0..rounds {
        let victim = (random.next_u32() % 3) as usize;
        tokio::time::sleep(Duration::from_millis(u64::from(random.next_u32() % 400))).await;
        outages.servers[victim].signal("-KILL");
        outages.servers[victim].ended(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(u64::from(random.next_u32() % 300))).await;
        let mut started = Server::start(&outages.configs[victim], &[]);
        started.wait("sockets", |event| matches!(event, Event::Listening { .. }).then_some(()));
        outages.servers[victim] = started;
        let wait = outages.devices.served(&format!("round {round}, server {victim}")).await;
        waits.push((wait, victim));
    }
    waits.sort();
    println!("{rounds} kills: waits {:?} (median), {:?} (longest)", waits[rounds / 2], waits.last());
    for server in 0..3 {
        let longest = waits.iter().rfind(|(_, victim)| *victim == server);
        println!("server {server}: {:?} at most", longest.map(|(wait, _)| wait));
    }
    let errors = outages.end().await;
    assert!(errors.is_empty(), "restarts are not the application's business: {errors:?}");
}
