//! Networks of others, as they lie in the public registries: `real/networks.py` fetches them, and tries each in the
//! clear and, the small ones, privately. Needs the network and minutes: only with `SECO_SLOW=1`.

use std::process::Command;

#[test]
fn networks_of_the_registries_do_what_is_expected_of_them() {
    if std::env::var_os("SECO_SLOW").is_none() {
        eprintln!("SKIPPED: fetches networks and takes minutes; set SECO_SLOW=1");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/networks.py");
    let done = match Command::new("python3").args([script, env!("CARGO_BIN_EXE_seco")]).output() {
        Ok(done) => done,
        Err(e) => return eprintln!("SKIPPED: python3 does not start: {e}"),
    };
    let table = String::from_utf8_lossy(&done.stdout);
    println!("{table}");
    // 77: the registry is not to be had, and the last line says so.
    let fine = matches!(done.status.code(), Some(0 | 77));
    assert!(fine, "{table}{}", String::from_utf8_lossy(&done.stderr));
}
