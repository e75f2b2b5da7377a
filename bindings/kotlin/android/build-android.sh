#!/bin/sh
# On a machine with Android's NDK (ANDROID_NDK_HOME), rustup and `cargo install cargo-ndk`: builds the libraries and the
# Kotlin sources that the Gradle module packs.
set -eu
cd "$(dirname "$0")/../../.."
rustup target add aarch64-linux-android armv7-linux-androideabi x86_64-linux-android
# Pages of 16 KB, as phones since Android 15 may have.
export RUSTFLAGS="-C link-arg=-Wl,--pack-dyn-relocs=android,--icf=all,-z,max-page-size=16384"
cargo ndk --platform 26 -t arm64-v8a -t armeabi-v7a -t x86_64 -o target/android/jniLibs \
  rustc --locked --profile android -p seco-bindings --lib --crate-type cdylib
unset RUSTFLAGS
bindings/build kotlin
