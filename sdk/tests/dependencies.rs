//! What a device compiles: nothing of the servers' cryptography, no second TLS stack, no command line. And what
//! `docs/versions.md` says of versions: that which the code has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

use seco_core::{SESSION_BLOB_VERSION, WIRE_VERSION};
use seco_sdk::Deployment;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// Every crate in `package`'s build for a device, without build scripts' and tests' needs.
fn crates(package: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "tree",
            "--package",
            package,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--offline",
            "--locked",
        ])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_device_compiles_no_server_code() {
    let sdk = crates("seco-sdk");
    assert!(sdk.contains("seco-core") && sdk.contains("quinn"), "{sdk:?}");
    for name in &sdk {
        // curve25519-dalek is X-Wing's; OT and garbling would come with the crates of the project.
        let forbidden =
            ["fhe", "fhe-math", "fhe-traits", "fhe-util", "aes", "rayon", "ndarray", "num-bigint"]
                .contains(&name.as_str())
                || ["prost", "clap", "aws-lc", "openssl", "rcgen", "rustls-platform"]
                    .iter()
                    .any(|p| name.starts_with(p))
                || (name.starts_with("seco-") && !["seco-core", "seco-sdk"].contains(&name.as_str()));
        assert!(!forbidden, "{name}");
    }
}

/// What is for an application's tests stays there: this crate's own tests ask for it too, and the laboratory does.
#[test]
fn nothing_that_ships_has_the_fake_client() {
    let device = ["-p", "seco-sdk", "-p", "seco-bindings", "-p", "seco-infer"];
    for (packages, ships) in [
        (&device[..], true),
        (&["-p", "seco-server", "--no-default-features"], true),
        // Where it is: so that what is said of the others says something.
        (&["-p", "seco-lab"], false),
    ] {
        let tree = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .arg("tree")
            .args(packages)
            .args(["--edges", "normal,build", "--prefix", "none", "--format", "{p} {f}"])
            .args(["--offline", "--locked"])
            .output()
            .unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        let lines = String::from_utf8(tree.stdout).unwrap();
        let sdk: Vec<_> = lines.lines().filter(|line| line.starts_with("seco-sdk ")).collect();
        let has = sdk.iter().any(|line| line.contains("testing"));
        assert!(!sdk.is_empty() && has != ships, "{packages:?}: {sdk:?}");
    }
}

#[test]
fn the_core_brings_no_runtime_and_no_generator() {
    let core = crates("seco-core");
    assert!(core.contains("hpke"), "{core:?}");
    for name in ["std", "tokio", "quinn", "ring", "rustls", "getrandom", "rand", "libc", "toml"] {
        assert!(!core.contains(name), "{name}");
    }
}

/// A file of the checkout.
fn text(path: &str) -> String {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between two texts, of which the first occurs once.
fn between(path: &str, before: &str, after: &str) -> String {
    let text = text(path);
    let parts: Vec<_> = text.split(before).collect();
    assert_eq!(parts.len(), 2, "{path}: {before:?} does not occur once");
    parts[1].split(after).next().unwrap().to_owned()
}

#[test]
fn the_table_of_versions_has_the_codes_numbers() {
    let documents = text("sdk/docs/versions.md");
    let header = "| release | wire | deployment file | stored session | mesh | ledger | bundle: file / content | part of a model |";
    let mut rows =
        documents.lines().skip_while(|line| *line != header).take_while(|line| line.starts_with('|'));
    let last = rows.by_ref().last().expect("the table's header is another");
    // Servers' numbers are their own, and this package may not depend on them.
    let [lowest, mesh] = ["LOWEST", "HIGHEST"]
        .map(|name| between("server/node/src/versions.rs", &format!("const {name}: u16 = "), ";"));
    let mesh = if lowest == mesh { mesh } else { format!("{lowest} to {mesh}") };
    let ledger =
        between("server/node/src/store/ledger/format.rs", "const HEADER: &[u8; 16] = b\"seco ledger v", "\\");
    let file = between("server/node/src/store/bundle_file.rs", "b\"SECO stored\\0\\0\\0\\0\\x0", "\"");
    let content = between("server/protocol/src/bundle.rs", "b\"SECO bundle\\0\\0\\0\\0\\x0", "\"");
    let parts = between("server/model/src/party.rs", "const FORMATS: RangeInclusive<u16> = ", ";");
    let (part, newest) = parts.split_once("..=").unwrap();
    let wide = between("server/model/src/party.rs", "(None, _) => ", ",");
    assert_eq!(
        last,
        format!(
            "| {} | {WIRE_VERSION} | {} ({} above 8 bits, {} of several models) | {SESSION_BLOB_VERSION} | {mesh} | {ledger} (reads 2 and 1) | {file} / {content} | {part} ({wide} above 8 bits, {newest} of real numbers) |",
            env!("CARGO_PKG_VERSION"),
            Deployment::VERSION,
            Deployment::VERSION_ABOVE_8_BITS,
            Deployment::VERSION_OF_SEVERAL,
        )
    );
    // What the protocol's document says of them.
    assert_eq!(between("server/PROTOCOL.md", "the wire version (", ")"), WIRE_VERSION.to_string());
    assert_eq!(between("server/PROTOCOL.md", "which a server speaks (", ")"), mesh);
}

#[test]
fn the_table_of_errors_has_the_codes_numbers() {
    let codes = between("bindings/src/error.rs", "pub const fn code(&self) -> u32 {", "\n    }\n");
    let codes: Vec<_> = codes
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.strip_suffix(',')?.split_once(" { .. } => "))
        .collect();
    assert_eq!(codes.len(), 11, "{codes:?}");
    for page in ["sdk/docs/errors.md", "bindings/python/README.md"] {
        let page = text(page);
        for (kind, code) in &codes {
            assert!(page.contains(&format!("\n| {code} | `{kind}` |")), "{code}, {kind}");
        }
    }
}

#[test]
fn all_packages_have_one_number() {
    let version = env!("CARGO_PKG_VERSION");
    let python = between("bindings/python/pyproject.toml", "\nversion = \"", "\"");
    let module = between("bindings/python/src/seco/__init__.py", "__version__ = \"", "\"");
    let kotlin = between("bindings/kotlin/pom.xml", "<artifactId>seco-jvm</artifactId>\n  <version>", "<");
    for found in [python, module, kotlin] {
        assert_eq!(found, version);
    }
    let least = between("Cargo.toml", "\nrust-version = \"", "\"");
    assert!(
        text("sdk/docs/versions.md").contains(&format!("| Rust, to build anything | {least} |")),
        "{least}"
    );
}
