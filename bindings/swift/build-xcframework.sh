#!/bin/sh
# On a Mac with Xcode and rustup: makes Seco.xcframework, which Package.swift refers to.
set -eu
cd "$(dirname "$0")/../.."
rustup target add aarch64-apple-ios aarch64-apple-ios-sim aarch64-apple-darwin
target=${CARGO_TARGET_DIR:-target}
headers=$target/swift/headers
rm -rf bindings/swift/Seco.xcframework "$headers"

cargo build --locked --release -p seco-bindings --features bindgen
"$target/release/seco-bindgen" generate "$target/release/libseco.dylib" --language swift --no-format \
  --out-dir "$target/swift/generated"
cp "$target/swift/generated/Seco.swift" bindings/swift/Sources/Seco/
# In a folder of its own, for an application may have several.
mkdir -p "$headers/SecoFFI"
cp "$target/swift/generated/SecoFFI.h" bindings/swift/Sources/SecoFFI/module.modulemap "$headers/SecoFFI/"

set --
for triple in aarch64-apple-ios aarch64-apple-ios-sim aarch64-apple-darwin; do
  cargo rustc --locked --profile mobile -p seco-bindings --lib --crate-type staticlib --target "$triple"
  set -- "$@" -library "$target/$triple/mobile/libseco.a" -headers "$headers"
done
xcodebuild -create-xcframework "$@" -output bindings/swift/Seco.xcframework
