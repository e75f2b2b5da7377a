//! A session that another device opened and stored here: goes on with it, then classifies two inputs.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[path = "../runtime.rs"]
mod runtime;

#[cfg(target_os = "none")]
#[cortex_m_rt::entry]
fn main() -> ! {
    // The macro hands it out as `&mut`: no other code can name it.
    static mut MEMORY: seco_firmware::device::Memory = seco_firmware::device::Memory::new();

    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;
    use seco_firmware::{board, device};

    board::replay(|board| {
        // A product reads it from the flash that `Board::store` writes.
        let mut blob = [0; seco_core::MAX_SESSION_BLOB];
        let blob = board::load(c"session", &mut blob)?;
        // A product seeds it from the chip's hardware generator.
        let mut seed = [0; 32];
        board::load(c"seed", &mut seed)?;
        let mut session = device::resume(board, blob, &mut ChaCha20Rng::from_seed(seed), MEMORY)?;
        device::infer(board, &mut session, MEMORY)?;
        device::infer(board, &mut session, MEMORY)
    })
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is the board's program: see cross/firmware/README.md");
}
