//! Fixed keys and hex for all tests.
#![allow(dead_code, reason = "every test binary uses a part of it")]

pub mod vectors;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use seco_core::{ModelId, ModelInfo, ServerOpeningKey, ServerSealingKey};

pub fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub fn opening_keys(count: u8) -> Vec<ServerOpeningKey> {
    (1..=count).map(|seed| ServerOpeningKey::from_seed([seed; 32])).collect()
}

pub fn sealing_keys(keys: &[ServerOpeningKey]) -> Vec<ServerSealingKey> {
    keys.iter().map(|key| key.sealing_key().unwrap()).collect()
}

pub fn model() -> ModelInfo {
    ModelInfo { id: ModelId([0xcd; 32]), input_len: 784, values: 10, width: 20 }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}
