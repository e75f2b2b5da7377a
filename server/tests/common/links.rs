//! A server's links in the hands of a test, which says and orders what no server would.

use std::net::SocketAddr;

use seco_core::ModelId;
use seco_node::keys;
use seco_node::mesh::{self, Mesh, Started};
use seco_node::reset::ResetKey;
use seco_node::versions::Versions;

use super::Site;

/// Takes the place of server `me` of a cluster: with its keys, as it is known to the others. `address` is where another
/// one listens, if that is known.
pub fn in_place_of(
    site: &Site,
    me: usize,
    listen: SocketAddr,
    address: impl Fn(usize) -> Option<String>,
) -> Started {
    let server = |index: usize| {
        let certificate = keys::certificate(&site.keys[index].certificate).unwrap();
        let (certificates, name) = (vec![certificate.clone()], format!("s{index}"));
        mesh::Server { name, address: address(index), certificates, known_as: certificate, ot_parameter: 2 }
    };
    let settings = mesh::Settings {
        versions: Versions::OURS,
        me,
        servers: (0..site.keys.len()).map(server).collect(),
        key: keys::tls_key(&site.keys[me].key).unwrap(),
        listen,
        models: vec![ModelId(site.model_id)],
        sealing_keys: vec![site.sealing_keys()[me].hash()],
        reset: ResetKey::random().unwrap(),
        records: None,
    };
    Mesh::start(settings).unwrap()
}
