//! Preprocessing of linear layers: one server's part in `F_i r_i` (`protocol.md` section 4).
//!
//! All layers go through each of the three messages together, so the number of rounds does not
//! depend on the model's depth.

use seco_he::Product;
use zeroize::Zeroizing;

use crate::channel::Channel;
use crate::draws::Draws;
use crate::error::{Error, from_peer};
use crate::party::{HeState, LayerState};
use crate::seeds::Seeds;

/// This server's share of every layer's product, mod `2^32`: `F^h r - Σ s^j` where it holds weights,
/// plus its own `s` towards other holders.
pub fn preprocess(
    he: &HeState,
    layers: &[LayerState],
    draws: &Draws,
    channel: &mut dyn Channel,
    seeds: &mut Seeds,
) -> Result<Vec<Zeroizing<Vec<u32>>>, Error> {
    let (me, parties) = (channel.me(), channel.parties());
    // 1. Every server's encrypted part of the mask, to the holders.
    let mut own: Vec<Option<Vec<u8>>> = Vec::with_capacity(layers.len());
    for (layer, mask) in layers.iter().zip(&draws.masks) {
        let encrypted = he.public.encrypt(&layer.plan, mask, &seeds.next())?;
        for &holder in layer.holders.iter().filter(|&&h| h != me) {
            channel.send(holder, encrypted.clone())?;
        }
        own.push(layer.holders.contains(&me).then_some(encrypted));
    }
    // 2. The holders' products; c1 to every other server.
    let mut products: Vec<Option<Product>> = Vec::with_capacity(layers.len());
    for (layer, own) in layers.iter().zip(&mut own) {
        let (Some(own), Some(weights)) = (own.take(), layer.weights.as_ref()) else {
            products.push(None);
            continue;
        };
        let mut encrypted = Vec::with_capacity(parties);
        for server in 0..parties {
            encrypted.push(if server == me {
                own.clone()
            } else {
                channel.recv(server, layer.plan.encrypted_len())?
            });
        }
        let (product, c1) = weights.multiply(&he.public, &encrypted, &seeds.next())?;
        for server in (0..parties).filter(|&s| s != me) {
            channel.send(server, c1.clone())?;
        }
        products.push(Some(product));
    }
    // 3. Decryption shares, with this server's s and its smudging noise, to each holder. Each c1 is
    // answered once: it is read from the channel once.
    for (layer, shares) in layers.iter().zip(&draws.shares) {
        for (holder, s) in shares {
            let c1 = channel.recv(*holder, layer.plan.c1_len())?;
            let answer = he.secret.answer(&layer.plan, &c1, s, &seeds.next());
            channel.send(*holder, from_peer(answer, *holder, "decryption share")?)?;
        }
    }
    // 4. The holders decode.
    let mut words = Vec::with_capacity(layers.len());
    for ((layer, product), ahead) in layers.iter().zip(products).zip(&draws.words) {
        let mut word = ahead.clone();
        if let Some(product) = product {
            let mut answers = Vec::with_capacity(parties - 1);
            for server in (0..parties).filter(|&s| s != me) {
                answers.push(channel.recv(server, layer.plan.answer_len())?);
            }
            let share = product.finish(&he.secret, &answers)?;
            word.iter_mut().zip(share.iter()).for_each(|(w, s)| *w = w.wrapping_add(*s));
        }
        words.push(word);
    }
    Ok(words)
}
