#!/bin/sh
# On a Mac with Xcode and rustup: makes Seco.xcframework, which Package.swift refers to, and of it what is published: an
# archive with its checksum, and the package that takes the library from there. `build-xcframework.sh [URL]`: see release.
set -eu
cd "$(dirname "$0")/../.."
rustup target add aarch64-apple-ios aarch64-apple-ios-sim aarch64-apple-darwin x86_64-apple-ios x86_64-apple-darwin
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

build() { # target triple
  cargo rustc --locked --profile mobile -p seco-bindings --lib --crate-type staticlib --target "$1"
}
both() { # name, target triples of one system: one library for both kinds of Mac
  build "$2" && build "$3"
  mkdir -p "$target/swift/$1"
  lipo -create "$target/$2/mobile/libseco.a" "$target/$3/mobile/libseco.a" -output "$target/swift/$1/libseco.a"
}
build aarch64-apple-ios
both simulator aarch64-apple-ios-sim x86_64-apple-ios
both mac aarch64-apple-darwin x86_64-apple-darwin
xcodebuild -create-xcframework \
  -library "$target/aarch64-apple-ios/mobile/libseco.a" -headers "$headers" \
  -library "$target/swift/simulator/libseco.a" -headers "$headers" \
  -library "$target/swift/mac/libseco.a" -headers "$headers" \
  -output bindings/swift/Seco.xcframework
bindings/swift/release "$@"
