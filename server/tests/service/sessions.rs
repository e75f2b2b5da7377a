//! Who may use a session, against real clusters: strangers, copies, replays, and what the gateway sees.

use crate::common::{Device, Opened, Site, digits, rng};
use seco_core::{Request, Response, SEALED_LEN, Session};
use seco_node::keys;

/// What the device is told, of a request that is refused.
async fn refused(device: &Device, request: &Request<'_>) -> String {
    device.opened(request).await.err().unwrap()
}

/// Whoever knows a session's id, which is no secret, can neither put keys of his own in its place, nor take it
/// up, nor use its numbers up or end it. The honest device notices nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_knows_the_id() {
    let mut site = Site::new(3);
    let (mut servers, address) = site.start_all();
    servers[0].wait_ready();
    let keys = site.sealing_keys();
    let owner = site.connect(address).await;
    let session = site.session(1);
    let mut opened = owner.open(&session, &keys).await.unwrap();
    let digit = &digits()[0];
    assert_eq!(owner.infer(&mut opened, digit).await.unwrap(), site.expected(digit));

    let stranger = site.connect(address).await;
    let own = site.session(66);
    let mut of_his_own = stranger.open(&own, &keys).await.unwrap();
    // Keys of his own under the other's id. Sealed for it or not makes no difference: both are refused.
    let requester = own.start(&stranger.exporter(), &mut rng(1));
    let mut buffer = [0; 3 * SEALED_LEN];
    let Request::Open { model, nonce, sealed, .. } =
        own.open_message(&requester, &keys, &mut rng(2), &mut buffer).unwrap()
    else {
        panic!()
    };
    let told = refused(&stranger, &Request::Open { session: session.id(), model, nonce, sealed }).await;
    assert!(told.contains("SealRejected"), "{told}");
    let mut blob = own.save(&mut [0; seco_core::MAX_SESSION_BLOB]).unwrap().to_vec();
    let forged = with_id(&mut blob, &session);
    assert_eq!(forged.id(), session.id());
    let told = stranger.open(&forged, &keys).await.err().unwrap();
    assert!(told.contains("UnknownSession"), "{told}");
    // Taking it up without its keys, with tags of his own session, and with none.
    let told = stranger.resume(&forged).await.err().unwrap();
    assert!(told.contains("UnknownSession"), "{told}");
    for tags in [&[0; 48][..], &[0xff; 48], &[7; 32], &[7; 47], &[]] {
        let request = Request::Resume { session: session.id(), nonce: [3; 16], tags };
        let told = refused(&stranger, &request).await;
        assert!(told.contains("UnknownSession") || told.contains("WrongServers"), "{told}");
    }
    // What the owner sent, heard somehow, and sent again on another connection.
    let heard = session.start(&owner.exporter(), &mut rng(200));
    let mut tags = [0; 48];
    let told = refused(&stranger, &heard.resume_message(&mut tags).unwrap()).await;
    assert!(told.contains("UnknownSession"), "{told}");
    let sealed = session.open_message(&heard, &keys, &mut rng(201), &mut buffer).unwrap();
    let told = refused(&stranger, &sealed).await;
    assert!(told.contains("SealRejected { server: 0 }"), "{told}");
    // Handles are of a connection: the owner's number on the stranger's is his own.
    assert_eq!(stranger.infer(&mut of_his_own, digit).await.unwrap(), site.expected(digit));
    drop(stranger);

    for digit in digits().iter().take(6) {
        assert_eq!(owner.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    }
}

/// The session of `blob` under the other one's id: keys of a stranger, name of the owner.
fn with_id(blob: &mut [u8], other: &Session) -> Session {
    use sha2::Digest as _;
    let len = blob.len();
    blob[6..22].copy_from_slice(&other.id().0);
    let sum = sha2::Sha256::digest(&blob[..len - 32]);
    blob[len - 32..].copy_from_slice(&sum);
    Session::restore(blob).unwrap()
}

/// A session that exists twice: both copies are served, and what they send under the same numbers has nothing
/// in common, even where a copy has the other's random generator too.
#[tokio::test(flavor = "multi_thread")]
async fn copies_are_served_under_pads_of_their_own() {
    let mut site = Site::new(2);
    let (mut servers, address) = site.start_all();
    servers[0].wait_ready();
    let keys = site.sealing_keys();
    let session = site.session(1);
    let first = site.connect(address).await;
    let mut clients: Vec<(Device, Opened)> = Vec::new();
    let opened = first.open(&session, &keys).await.unwrap();
    clients.push((first, opened));
    for _ in 0..3 {
        let copy = site.connect(address).await;
        // `resume` draws the same nonce every time: these are snapshots of one device.
        let opened = copy.resume(&session).await.unwrap();
        clients.push((copy, opened));
    }
    let digits = digits();
    let mut sent: Vec<(Vec<u8>, &Vec<u8>)> = Vec::new();
    for round in 0..2 {
        for (i, (device, opened)) in clients.iter_mut().enumerate() {
            let digit = &digits[4 * round + i];
            let mut masked = digit.clone();
            let pending = opened.requester.request(&mut masked).unwrap();
            assert_eq!(pending.counter(), round as u64);
            sent.push((masked.clone(), digit));
            let request = Request::Infer { handle: opened.handle, counter: round as u64, input: &masked };
            let messages = device.ask(&request).await;
            let logits = opened.read(pending, messages.last().unwrap()).unwrap();
            assert_eq!(logits, site.expected(digit));
        }
    }
    let xor = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a ^ b).collect::<Vec<u8>>();
    for (i, (a, x)) in sent.iter().enumerate() {
        for (b, y) in &sent[..i] {
            assert_ne!(xor(a, b), xor(x, y), "a pad was used twice");
        }
    }
}

/// Which server's key is wrong in a deployment file, for every server; and a device with an older file, whose
/// server still has the key.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_whose_key_differs_is_named() {
    let mut site = Site::new(3);
    // Server 1 has a new key and keeps the old one.
    let new = keys::generate(&site.folder.path().join("new"), "s1").unwrap();
    let old = site.keys[1].clone();
    site.keys[1].opening_key = new.opening_key;
    site.keys[1].sealing_key = new.sealing_key;
    site.retired[1] = vec![old.opening_key.clone()];
    let (mut servers, address) = site.start_all();
    servers[0].wait_ready();
    let right = site.sealing_keys();
    let before = keys::sealing_key(&old.sealing_key).unwrap();
    let stranger = keys::generate(&site.folder.path().join("other"), "other").unwrap();
    let stranger = keys::sealing_key(&stranger.sealing_key).unwrap();
    let device = site.connect(address).await;
    let open = async |keys: &[_], seed| {
        let session = Session::new(site.info(), keys, 0, &mut rng(seed)).unwrap();
        device.open(&session, keys).await
    };
    for server in 0..3 {
        let mut keys = right.clone();
        keys[server] = stranger.clone();
        let told = open(&keys, 10).await.err().unwrap();
        assert!(told.contains(&format!("SealRejected {{ server: {server} }}")), "{told}");
    }
    let digit = &digits()[1];
    for (seed, key) in [(20, &right[1]), (21, &before)] {
        let mut keys = right.clone();
        keys[1] = key.clone();
        let mut opened = open(&keys, seed).await.unwrap();
        assert_eq!(device.infer(&mut opened, digit).await.unwrap(), site.expected(digit));
    }
    // Blobs altered on their way, for every server; and not one for each.
    for server in 0..3 {
        let session = site.session(30);
        let requester = session.start(&device.exporter(), &mut rng(31));
        let mut buffer = [0; 3 * SEALED_LEN];
        let request = session.open_message(&requester, &right, &mut rng(32), &mut buffer).unwrap();
        let Request::Open { session, model, nonce, sealed } = request else { panic!() };
        let mut sealed = sealed.to_vec();
        sealed[server * SEALED_LEN + 700] ^= 1;
        let told = refused(&device, &Request::Open { session, model, nonce, sealed: &sealed }).await;
        assert!(told.contains(&format!("SealRejected {{ server: {server} }}")), "{told}");
        let sealed = &sealed[..2 * SEALED_LEN];
        let told = refused(&device, &Request::Open { session, model, nonce, sealed }).await;
        assert!(told.contains("WrongServers"), "{told}");
    }
    // A request of version 1 is told what is spoken here.
    let messages = device.ask_raw(&[2, 1, 0]).await;
    let told = format!("{:?}", Response::decode(&messages[0]).unwrap());
    assert!(told.contains("VersionUnsupported { supported: 2 }"), "{told}");
}
