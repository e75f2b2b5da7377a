//! A session from its keys on: opens it, then classifies two inputs.
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
        // A product seeds it from the chip's hardware generator.
        let mut seed = [0; 32];
        board::load(c"seed", &mut seed)?;
        let mut session = device::open(board, &mut ChaCha20Rng::from_seed(seed), MEMORY)?;
        device::infer(board, &mut session, MEMORY)?;
        device::infer(board, &mut session, MEMORY)
    })
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is the board's program: see cross/firmware/README.md");
}
