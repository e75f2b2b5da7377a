//! What a device compiles: nothing of the servers' cryptography, no second TLS stack, no command line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
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

/// What is for an application's tests stays there: this crate's own tests ask for it too.
#[test]
fn no_build_but_the_tests_has_the_fake_client() {
    let tree = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--workspace", "--edges", "normal,build", "--prefix", "none", "--format", "{p} {f}"])
        .args(["--offline", "--locked"])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).unwrap();
    let sdk: Vec<_> = lines.lines().filter(|line| line.starts_with("seco-sdk ")).collect();
    assert!(sdk.iter().any(|line| line.contains("tables")), "{sdk:?}");
    assert!(!sdk.iter().any(|line| line.contains("testing")), "{sdk:?}");
}

#[test]
fn the_core_brings_no_runtime_and_no_generator() {
    let core = crates("seco-core");
    assert!(core.contains("hpke"), "{core:?}");
    for name in ["std", "tokio", "quinn", "ring", "rustls", "getrandom", "rand", "libc", "toml"] {
        assert!(!core.contains(name), "{name}");
    }
}
