//! Writes the Kotlin, Swift and Python sources of the library: `seco-bindgen generate --language kotlin …`.

fn main() {
    uniffi::uniffi_bindgen_main();
}
