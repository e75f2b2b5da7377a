//! A request takes nothing from the heap: masking, framing, reading the answer, unmasking; nor does saving a
//! session or taking one up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod common;

use common::{model, opening_keys, rng, sealing_keys};
use seco_core::message::decode_header;
use seco_core::{MAX_SESSION_BLOB, Request, Response, Session, input};
use std::hint::black_box;

/// How often `work` asked for memory on this thread, and what it gave. Growing a block counts.
fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(work()));
    (info.count_total, result.unwrap())
}

fn frame<'o>(response: Response<'_>, out: &'o mut [u8]) -> &'o [u8] {
    response.encode_frame(out).unwrap()
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))).0, 1);
    assert_eq!(allocations(|| drop(black_box(vec![0u8; 10]))).0, 1);
}

#[test]
fn a_request_does_not_allocate() {
    for (servers, input_len, values) in [(2, 784, 10), (3, 784, 10), (8, 3 * 224 * 224, 1000)] {
        let public = sealing_keys(&opening_keys(servers));
        let model = seco_core::ModelInfo { input_len, values, ..model() };
        let session = Session::new(model, &public, 0, &mut rng(1)).unwrap();
        let (pixels, mut planes) = (vec![7; input_len / 3 * 3], vec![0; input_len]);
        let mut up = vec![0; input_len + 100];
        let mut logits = vec![0; values];
        let masked = vec![0; model.logits_len()];
        let mut logits_down = vec![0; masked.len() + 100];
        let logits_down = frame(Response::Logits { masked: &masked }, &mut logits_down);
        let (mut blob, mut tags, mut random) = ([0; MAX_SESSION_BLOB], [0; 128], rng(2));

        for _ in 0..3 {
            let (count, ()) = allocations(|| {
                session.save(&mut blob).unwrap();
                let mut requester = session.start(&[3; 32], &mut random);
                requester.resume_message(&mut tags).unwrap();
                input::planes_from_rgb(&pixels, &mut planes[..pixels.len()]).unwrap();

                let pending = requester.request(&mut planes).unwrap();
                let request = Request::Infer { handle: 1, counter: pending.counter(), input: &planes };
                assert!(request.encode_frame(&mut up).unwrap().len() > input_len);
                let header = decode_header(logits_down, model.response_limit()).unwrap().unwrap();
                match Response::decode(header.message(logits_down).unwrap()) {
                    Ok(Response::Logits { masked }) => {
                        requester.unmask_logits(pending, masked, &mut logits).unwrap();
                    }
                    _ => unreachable!(),
                }
            });
            assert_eq!(count, 0, "{servers} servers, {input_len} bytes");
        }
        let (count, restored) =
            allocations(|| Session::restore(&mut blob[..138 + 32 * usize::from(servers)]));
        assert!(restored.is_ok());
        assert_eq!(count, 0);
    }
}
