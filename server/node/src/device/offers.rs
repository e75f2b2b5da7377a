//! Deployment files that devices are offered when theirs is older (section 8 of PROTOCOL.md).

use std::fs;
use std::path::{Path, PathBuf};

use seco_sdk::{Deployment, Update};
use tracing::{debug, warn};

/// A file that may be offered, and whose it is.
fn read(path: &Path) -> Result<(Update, String), String> {
    let bad = |what: String| format!("{}: {what}", path.display());
    let length = fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
    if length > Update::MAX_TEXT as u64 {
        return Err(bad(format!("has {length} bytes, devices take {}", Update::MAX_TEXT)));
    }
    let text = fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let deployment = Deployment::from_toml(&text).map_err(|e| bad(e.to_string()))?;
    let update = deployment.update.ok_or_else(|| bad("names no owner: no device may take it".to_owned()))?;
    // Devices check it again, with the key that they have. One that they would refuse must not hide a good one.
    if !deployment.is_signed(&text) {
        return Err(bad(
            "is not signed by its owner as it is now: write it with `seco deployment --owner`".to_owned()
        ));
    }
    Ok((update, text))
}

/// Says which files will not be offered as they are now. Blocking.
pub fn check(files: &[PathBuf]) {
    for what in files.iter().filter_map(|path| read(path).err()) {
        warn!("not offered to devices: {what}");
    }
}

/// What a device may take instead of its own file: of its owner's files the one with the largest number, if that is
/// larger than `serial`. Reads the files, so that those of now are offered. Blocking.
pub fn newer(files: &[PathBuf], owner: &[u8], serial: u64) -> Option<String> {
    let read = |path: &PathBuf| match read(path) {
        Ok(found) => Some(found),
        Err(what) => {
            // Said at the start; anybody may ask, as often as the door lets him.
            debug!("not offered to devices: {what}");
            None
        }
    };
    let found =
        files.iter().filter_map(read).filter(|(update, _)| update.owner == owner && update.serial > serial);
    found.max_by_key(|(update, _)| update.serial).map(|(_, text)| text)
}
