//! Deployment files that a gateway passes on: a device whose own has grown old takes the next one from where it is, and
//! is served with it.

use std::path::Path;

use crate::common::{Site, digits};
use seco_node::keys;
use seco_sdk::{Client, Deployment, Error, Transport};
use seco_tools::split::{self, FileOptions, JoinOptions, Named};

/// A file of this owner with this number.
fn signed(site: &Site, address: std::net::SocketAddr, owner: &Path, serial: u64, name: &str) -> Deployment {
    let mut options = site.deployment_options(address, name);
    options.file =
        FileOptions { owner: Some(owner.to_owned()), serial: Some(serial), force: true, ..options.file };
    split::deployment(&options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_takes_the_next_file_from_its_gateway() {
    let mut site = Site::new(2);
    let place = |name: &str| site.folder.path().join(name);
    let (offered, other, broken) = (place("offered.toml"), place("other.toml"), place("broken.toml"));
    site.deployments = vec![offered.clone(), other, broken.clone()];
    let make = |name: &str| keys::generate_owner(site.folder.path(), name).unwrap();
    let (owner, stranger) = (make("app"), make("stranger"));
    assert!(keys::generate_owner(site.folder.path(), "app").is_err(), "nothing is overwritten");
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();

    // Its sealing key has changed since this file: sessions are refused, and only the next file helps.
    let old = signed(&site, address, &owner, 1, "old.toml");
    let mut outdated = old.clone();
    let (first, second) = (outdated.servers[0].sealing_key.clone(), outdated.servers[1].sealing_key.clone());
    (outdated.servers[0].sealing_key, outdated.servers[1].sealing_key) = (second, first);
    for transport in [Transport::Quic, Transport::Tcp] {
        let ask = |deployment: &Deployment| Client::builder(deployment.clone()).transport(transport);
        let refused = ask(&outdated).connect().await.err().unwrap();
        assert!(matches!(refused, Error::Refused(_)), "{refused}");
        std::fs::remove_file(&offered).ok();
        assert_eq!(ask(&outdated).fetch_update().await.unwrap(), None, "there is none yet");
        // Files of others, and what is no file, are in nobody's way.
        signed(&site, address, &stranger, 9, "other.toml");
        std::fs::write(&broken, "nonsense").unwrap();
        assert_eq!(ask(&outdated).fetch_update().await.unwrap(), None);
        signed(&site, address, &owner, 2, "offered.toml");
        let text = ask(&outdated).fetch_update().await.unwrap().unwrap();
        assert_eq!(text, std::fs::read_to_string(&offered).unwrap());
        let next = outdated.successor(&text).unwrap();
        let client = ask(&next).connect().await.unwrap();
        let digit = &digits()[0];
        assert_eq!(client.infer(digit).await.unwrap().logits, site.expected(digit));
        assert_eq!(ask(&next).fetch_update().await.unwrap(), None, "it has the newest");
        // One that was altered is not passed on, and not taken.
        let altered = text.replace("s1\"", "s9\"");
        std::fs::write(&offered, &altered).unwrap();
        assert_eq!(ask(&outdated).fetch_update().await.unwrap(), None);
        assert!(outdated.successor(&altered).unwrap_err().to_string().contains("signature"));
    }
    // A file without an owner is replaced by nobody.
    let told = Client::builder(site.deployment(address)).fetch_update().await.unwrap_err();
    assert!(matches!(told, Error::Setting { setting: "deployment", .. }), "{told}");
}

/// From a file of one model to one that names models, and on: the owner's signature and number are of the whole file, and
/// those of the files that were joined do not count.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_several_models_is_passed_on() {
    let mut site = Site::new(2);
    let offered = site.folder.path().join("offered.toml");
    site.deployments = vec![offered.clone()];
    let make = |name: &str| keys::generate_owner(site.folder.path(), name).unwrap();
    let (owner, stranger) = (make("app"), make("stranger"));
    let (mut servers, address) = site.start_all();
    servers[0].wait_bundle();
    let first = signed(&site, address, &owner, 1, "first.toml");
    signed(&site, address, &stranger, 9, "second.toml");
    let join = |serial: u64| {
        let named =
            |name: &str, file: &str| Named { name: name.to_owned(), file: site.folder.path().join(file) };
        let models = vec![named("one", "first.toml"), named("two", "second.toml")];
        let file = FileOptions {
            owner: Some(owner.clone()),
            serial: Some(serial),
            out: offered.clone(),
            force: true,
        };
        split::join(&JoinOptions { models, file }).unwrap()
    };
    let mut present = first;
    for serial in [2, 3] {
        let joined = join(serial);
        let text = Client::builder(present.clone()).fetch_update().await.unwrap().unwrap();
        assert_eq!(text, std::fs::read_to_string(&offered).unwrap());
        let next = present.successor(&text).unwrap();
        assert_eq!(next, joined);
        let digit = &digits()[0];
        for name in ["one", "two"] {
            let client = Client::connect(next.clone().select(Some(name)).unwrap()).await.unwrap();
            assert_eq!(client.infer(digit).await.unwrap().logits, site.expected(digit));
        }
        // One that has chosen its model fetches the next file all the same.
        present = next.select(Some("two")).unwrap();
    }
    assert_eq!(Client::builder(present).fetch_update().await.unwrap(), None);
}
