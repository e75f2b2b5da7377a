//! The device's own work without a socket, so that it can be counted exactly on any processor: what a session
//! and a request take beyond the transport, and what remains of a plain request there.

use crate::phase::{HeapWatch, no_heap_watch, run};
use crate::{Error, Result, input};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use seco_core::message::decode_header;
use seco_core::{
    EXPORTER_LEN, ModelId, ModelInfo, Request, Response, SEALED_LEN, ServerOpeningKey, ServerSealingKey,
    Session,
};
use std::hint::black_box;

/// What to do.
pub struct Options {
    /// Servers of the cluster.
    pub servers: usize,
    /// Bytes of an input.
    pub input: usize,
    /// Integers of an answer.
    pub values: usize,
    /// Bits of each.
    pub width: u32,
    /// How often each phase is repeated.
    pub rounds: usize,
}

/// The phases `empty`, `session`, `request` and `plain`, `rounds` times each; `request` under `heap`.
///
/// # Errors
/// None that a right program would see.
pub fn measure(options: &Options, heap: HeapWatch) -> Result<()> {
    // Fixed: every run executes the same instructions.
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let servers: Vec<ServerSealingKey> = (0..options.servers)
        .map(|_| ServerOpeningKey::generate(&mut rng).sealing_key().map_err(failed))
        .collect::<Result<_>>()?;
    let Options { input: input_len, values, width, rounds, .. } = *options;
    let model = ModelInfo { id: ModelId([3; 32]), input_len, values, width };
    let mut up = vec![0; input_len.max(servers.len() * SEALED_LEN) + 128];
    let (answer, noise) = (vec![0; model.logits_len()], input(model.logits_len()));
    let (mut private_down, mut plain_down) = (vec![0; answer.len() + 128], vec![0; answer.len() + 128]);
    let private_down =
        Response::Logits { masked: &answer }.encode_frame(&mut private_down).map_err(failed)?;
    let plain_down = Response::Probe { noise: &noise }.encode_frame(&mut plain_down).map_err(failed)?;
    let mut logits = vec![0; values];
    let mut values = input(input_len);

    for _ in 0..rounds {
        run("empty", no_heap_watch, || Ok(()))?;
        run("session", no_heap_watch, || {
            let session = Session::new(model, &servers, 0, &mut rng).map_err(failed)?;
            let requester = session.start(&[5; EXPORTER_LEN], &mut rng);
            let mut sealed = [0; seco_core::MAX_SERVERS * SEALED_LEN];
            let open = session.open_message(&requester, &servers, &mut rng, &mut sealed).map_err(failed)?;
            black_box(open.encode_frame(&mut up).map_err(failed)?);
            Ok(())
        })?;
    }
    let session = Session::new(model, &servers, 0, &mut rng).map_err(failed)?;
    let mut requester = session.start(&[5; EXPORTER_LEN], &mut rng);
    for _ in 0..rounds {
        run("request", heap, || {
            let pending = requester.request(&mut values).map_err(failed)?;
            let request = Request::Infer { handle: 1, counter: pending.counter(), input: &values };
            black_box(request.encode_frame(&mut up).map_err(failed)?);
            match decode(black_box(private_down), &model)? {
                Response::Logits { masked } => {
                    requester.unmask_logits(pending, masked, &mut logits).map_err(failed)
                }
                _ => Err(Error::new("socket-free request", "wrong answer")),
            }
        })?;
        black_box(&logits);
    }
    for _ in 0..rounds {
        run("plain", heap, || {
            let request = Request::Probe { down: 0, noise: &values };
            black_box(request.encode_frame(&mut up).map_err(failed)?);
            black_box(decode(black_box(plain_down), &model)?);
            Ok(())
        })?;
    }
    Ok(())
}

fn decode<'a>(frame: &'a [u8], model: &ModelInfo) -> Result<Response<'a>> {
    let header = decode_header(frame, model.response_limit()).map_err(failed)?;
    let message = header.and_then(|header| header.message(frame));
    Response::decode(message.ok_or_else(|| Error::new("answer", "incomplete"))?).map_err(failed)
}

fn failed(error: seco_core::Error) -> Error {
    Error::new("socket-free work", error)
}
