//! A session and a request without a network: the device's half as a microcontroller has it, and two servers that find the
//! input under its pads and answer under theirs. In the protocol no server sees what another one finds.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use seco_core::message::{FRAME_OVERHEAD, sealed_keys};
use seco_core::{
    Binding, EXPORTER_LEN, MAX_SESSION_BLOB, ModelId, ModelInfo, Request, SEALED_LEN, ServerOpeningKey,
    ServerSetId, Session, pack,
};
use std::io::Read as _;

const SERVERS: usize = 2;
const MODEL: ModelInfo = ModelInfo { id: ModelId([7; 32]), input_len: 784, values: 10, width: 20 };

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let mut rng = ChaCha20Rng::from_seed(seed);

    // The operators made these; the deployment file has the public halves.
    let opening: [_; SERVERS] = std::array::from_fn(|_| ServerOpeningKey::generate(&mut rng));
    let public = opening.iter().map(ServerOpeningKey::sealing_key).collect::<Result<Vec<_>, _>>()?;
    // What TLS exports at both ends of the connection; here it is drawn.
    let mut exporter = [0; EXPORTER_LEN];
    rng.fill_bytes(&mut exporter);

    // Once in weeks: keys for every server, sealed, and the session as it is stored.
    let session = Session::new(MODEL, &public, 0, &mut rng)?;
    let mut requester = session.start(&exporter, &mut rng);
    let mut buffer = [0; SERVERS * SEALED_LEN];
    let open = session.open_message(&requester, &public, &mut rng, &mut buffer)?;
    let mut frame = [0; FRAME_OVERHEAD + SERVERS * SEALED_LEN];
    println!("opening a session: {} bytes", open.encode_frame(&mut frame)?.len());
    let mut blob = [0; MAX_SESSION_BLOB];
    println!("the stored session: {} bytes, secret", session.save(&mut blob)?.len());

    // Each time: masked where it lies.
    let input: [u8; 784] = std::array::from_fn(|i| (i % 256) as u8);
    let mut masked = input;
    let pending = requester.request(&mut masked)?;
    let request = Request::Infer { handle: 0, counter: pending.counter(), input: &masked };
    let mut frame = [0; FRAME_OVERHEAD + 784];
    println!("a request with {} values: {} bytes", input.len(), request.encode_frame(&mut frame)?.len());

    // The servers: each opens its key, takes its pad off the input, and puts its pad on the answer.
    let Request::Open { session: id, sealed, .. } = open else { return Err("no such message".into()) };
    let incarnation = requester.incarnation();
    let servers = ServerSetId::new(&public)?;
    let binding = Binding { session: id, model: MODEL.id, servers, incarnation: incarnation.id() };
    let expected: [i32; 10] = std::array::from_fn(|i| 1000 - 300 * i as i32);
    let mut answer = expected.map(i32::cast_unsigned);
    for (index, (key, sealed)) in (0u8..).zip(opening.iter().zip(sealed_keys(sealed)?)) {
        let keys = key.open(sealed, &binding, index)?.for_connection(&incarnation);
        keys.apply_input_pad(pending.counter(), &mut masked)?;
        let mut pad = [0; 10];
        keys.output_pad(pending.counter(), MODEL.width, &mut pad)?;
        answer.iter_mut().zip(pad).for_each(|(word, pad)| *word = word.wrapping_add(pad));
    }
    assert_eq!(masked, input, "all pads off is the input");
    answer.iter_mut().for_each(|word| *word &= (1 << MODEL.width) - 1);
    let mut packed = vec![0; MODEL.logits_len()];
    pack::pack(&answer, MODEL.width, &mut packed)?;

    let mut logits = [0; 10];
    requester.unmask_logits(pending, &packed, &mut logits)?;
    assert_eq!(logits, expected);
    println!("an answer with {} values: {} bytes, and they are the servers'", logits.len(), packed.len());
    Ok(())
}
