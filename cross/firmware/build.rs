//! Makes the deployment's sealing keys, and hands the linker the board's memory map.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a build script reports by panicking")]

use seco_core::{SEALING_KEY_LEN, ServerOpeningKey};
use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let keys: [[u8; SEALING_KEY_LEN]; 3] = [0u8, 1, 2].map(|index| {
        // As `opening_seed` in src/lib.rs; examples/servers.rs opens what is sealed to them.
        let key = ServerOpeningKey::from_seed([index + 1; 32]).sealing_key().expect("a key of any seed");
        *key.as_bytes()
    });
    fs::write(out.join("sealing_keys.rs"), format!("&{keys:?}")).expect("OUT_DIR is writable");

    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=memory.x");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        fs::copy("memory.x", out.join("memory.x")).expect("memory.x is in this folder");
        println!("cargo:rustc-link-search={}", out.display());
        println!("cargo:rustc-link-arg-bins=-Tlink.x");
    }
}
