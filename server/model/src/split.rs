//! Dealing a model out to the servers (section 1 of PROTOCOL.md).

use rand_core::CryptoRng;

use crate::{Error, FixedLayer, FixedModel, LayerWeights, PartyModel, Placement};

/// The paper's split: the gateway (server 0) holds the first `gateway_layers` layers, the remotes share the others.
/// A single remote shares them with the gateway, so that nobody has those weights in clear.
pub fn paper_placements(layers: usize, servers: usize, gateway_layers: usize) -> Vec<Placement> {
    let sharers: Vec<usize> = if servers > 2 { (1..servers).collect() } else { (0..servers).collect() };
    (0..layers)
        .map(|i| if i < gateway_layers { Placement::Held(0) } else { Placement::Shared(sharers.clone()) })
        .collect()
}

/// Splits a model among `servers`: one part for each, in order. Every call makes another split, with its own id; the
/// parts of different splits do not fit together.
///
/// A layer's weights and biases go, mod `2^k_l`, to the server that holds it or as uniform additive shares to those
/// that share it, and to nobody else.
///
/// # Errors
/// [`Error::Shape`] if the model is not consistent or the placements are not possible.
pub fn split<R: CryptoRng + ?Sized>(
    model: &FixedModel,
    servers: usize,
    placements: &[Placement],
    rng: &mut R,
) -> Result<Vec<PartyModel>, Error> {
    let architecture = model.architecture(servers, placements)?;
    let mut nonce = [0; 32];
    rng.fill_bytes(&mut nonce);
    let mut parts: Vec<Vec<Option<LayerWeights>>> =
        (0..servers).map(|_| (0..model.layers.len()).map(|_| None).collect()).collect();
    let widths = model.graph.layers().map(|layer| layer.width);
    for (i, ((layer, width), placement)) in model.layers.iter().zip(widths).zip(placements).enumerate() {
        let shares = deal(layer, width, placement.holders().len(), rng);
        for (&holder, share) in placement.holders().iter().zip(shares) {
            if let Some(place) = parts.get_mut(holder).and_then(|p| p.get_mut(i)) {
                *place = Some(share);
            }
        }
    }
    let party = |(index, part)| PartyModel::assemble(architecture.clone(), nonce, index, part);
    parts.into_iter().enumerate().map(party).collect()
}

/// The values themselves for one holder, additive shares for several.
fn deal<R: CryptoRng + ?Sized>(
    layer: &FixedLayer,
    width: u32,
    holders: usize,
    rng: &mut R,
) -> Vec<LayerWeights> {
    let mask = u32::MAX >> (u32::BITS - width.clamp(1, 32));
    // A two's-complement number mod 2^32 is its low 32 bits, and mod 2^width its low `width` bits. All vectors here
    // are collected at once from iterators that know their length, so no copies are left behind.
    let mut rest = LayerWeights {
        weights: layer.weights.iter().map(|&w| w as u32 & mask).collect(),
        bias: layer.bias.iter().map(|&b| b as u32 & mask).collect(),
    };
    let mut uniform = |rest: &mut [u32]| {
        let share = |value: &mut u32| {
            let share = rng.next_u32() & mask;
            *value = value.wrapping_sub(share) & mask;
            share
        };
        rest.iter_mut().map(share).collect()
    };
    let mut shares: Vec<LayerWeights> = (1..holders)
        .map(|_| LayerWeights { weights: uniform(&mut rest.weights), bias: uniform(&mut rest.bias) })
        .collect();
    shares.push(rest);
    shares
}
