//! Keys of one server: its TLS identity, and the key that opens devices' session keys.

use std::fs;
use std::path::{Path, PathBuf};

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use seco_core::{ModelId, ServerOpeningKey, ServerSealingKey};
use seco_sdk::CertificatePin;
use zeroize::Zeroizing;

use crate::Error;
use crate::private::{self, PUBLIC, SECRET};
use crate::store::ledger;

/// Certificates are compared whole, so the name inside is never looked at; TLS wants one.
pub const TLS_NAME: &str = "seco";

/// Key files are a few kilobytes; whatever is larger was mistaken for one.
const MAX_FILE: u64 = 64 * 1024;

/// The files [`generate`] writes.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// `NAME.cert.pem`: TLS certificate, public.
    pub certificate: PathBuf,
    /// `NAME.key.pem`: TLS private key, mode 0600.
    pub key: PathBuf,
    /// `NAME.opening.key`: opens session keys, mode 0600.
    pub opening_key: PathBuf,
    /// `NAME.sealing.pub`: its public half, for the deployment file.
    pub sealing_key: PathBuf,
}

/// Makes a server's keys in `dir` (created when missing). Existing files are not overwritten.
pub fn generate(dir: &Path, name: &str) -> Result<KeyFiles, Error> {
    check_name(name)?;
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    let files = KeyFiles {
        certificate: dir.join(format!("{name}.cert.pem")),
        key: dir.join(format!("{name}.key.pem")),
        opening_key: dir.join(format!("{name}.opening.key")),
        sealing_key: dir.join(format!("{name}.sealing.pub")),
    };
    let all = [&files.certificate, &files.key, &files.opening_key, &files.sealing_key];
    // A head without its ledger stops a server, and new keys are what allows to remove both.
    let entries = fs::read_dir(dir).map_err(|e| Error::read(dir, e))?;
    let is_head = |path: &PathBuf| ledger::is_head(path, name);
    let head = entries.filter_map(|entry| Some(entry.ok()?.path())).find(is_head);
    if let Some(path) = all.into_iter().find(|p| p.exists()).cloned().or(head) {
        return Err(Error::Exists { path, remedy: "choose another --name or --out, or remove it" });
    }

    let (certificate, tls_key) = self_signed().map_err(|_| {
        Error::Usage("the TLS library could not make a certificate: please report this".to_owned())
    })?;
    private::create(&files.key, Zeroizing::new(tls_key.serialize_pem()).as_bytes(), SECRET)?;
    private::create(&files.certificate, certificate.pem().as_bytes(), PUBLIC)?;

    let seed = secret()?;
    private::create(&files.opening_key, Zeroizing::new(to_hex(seed.as_slice())).as_bytes(), SECRET)?;
    let sealing = public_half(&ServerOpeningKey::from_seed(*seed), &files.opening_key)?;
    private::create(&files.sealing_key, to_hex(sealing.as_bytes()).as_bytes(), PUBLIC)?;
    Ok(files)
}

/// Makes the key of whoever owns a deployment file, `NAME.owner.key` in `dir`, mode 0600; gives its path.
pub fn generate_owner(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    check_name(name)?;
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    let path = dir.join(format!("{name}.owner.key"));
    if path.exists() {
        return Err(Error::Exists { path, remedy: "choose another --name or --out, or remove it" });
    }
    let seed = secret()?;
    private::create(&path, Zeroizing::new(to_hex(seed.as_slice())).as_bytes(), SECRET)?;
    Ok(path)
}

/// The key of a deployment file's owner.
pub struct OwnerKey(Ed25519KeyPair);

impl OwnerKey {
    /// Reads what [`generate_owner`] wrote.
    pub fn load(path: &Path) -> Result<OwnerKey, Error> {
        let text = read_secret(path)?;
        let mut seed = Zeroizing::new([0; 32]);
        let read = from_hex(text.trim(), seed.as_mut_slice());
        let pair = read.and_then(|()| Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).ok());
        pair.map(OwnerKey).ok_or_else(|| Error::Key {
            path: path.to_owned(),
            what: "is no owner's key: make one with `seco keygen --owner`".to_owned(),
        })
    }

    /// The public half.
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    /// A signature.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.0.sign(message).as_ref());
        signature
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::Usage(format!(
            "--name {name:?}: give one of letters, digits, - _ . that does not begin with a dot"
        )));
    }
    Ok(())
}

/// Ed25519 is the one kind of certificate that devices have code for.
pub fn self_signed() -> Result<(rcgen::Certificate, rcgen::KeyPair), rcgen::Error> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    Ok((rcgen::CertificateParams::new(vec![TLS_NAME.to_owned()])?.self_signed(&key)?, key))
}

/// Bytes from the operating system's generator.
pub fn random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes).map_err(|_| Error::NoRandomness)
}

/// 32 bytes of it: a seed or a key.
pub fn secret() -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    random(bytes.as_mut_slice())?;
    Ok(bytes)
}

/// Reads a PEM certificate, which must be for an Ed25519 key: the first of the file.
pub fn certificate(path: &Path) -> Result<CertificateDer<'static>, Error> {
    let first = certificates(path)?.into_iter().next();
    first.ok_or_else(|| Error::Key { path: path.to_owned(), what: NO_CERTIFICATE.to_owned() })
}

const NO_CERTIFICATE: &str = "holds no PEM certificate: give the NAME.cert.pem of `seco keygen`";

/// Reads PEM certificates one after the other, from one to [`MAX_CERTIFICATES`] for Ed25519 keys.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |what: &str| Error::Key { path: path.to_owned(), what: what.to_owned() };
    let pem = read(path)?;
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| bad(NO_CERTIFICATE))?;
        if !CertificatePin::is_supported(&certificate) {
            return Err(bad(
                "is a certificate that devices cannot check, for its key is not Ed25519; `seco keygen` makes one",
            ));
        }
        if all.len() == MAX_CERTIFICATES {
            return Err(bad("holds more than the present and the next certificate: take the oldest out"));
        }
        all.push(certificate);
    }
    if all.is_empty() { Err(bad(NO_CERTIFICATE)) } else { Ok(all) }
}

/// Certificates that a server may have at a time: the present one and the next.
pub const MAX_CERTIFICATES: usize = 2;

/// Reads a PEM private key.
pub fn tls_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = read_secret(path)?;
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::Key {
        path: path.to_owned(),
        what: "holds no PEM private key: give the NAME.key.pem of `seco keygen`".to_owned(),
    })
}

/// Reads the key that opens session keys.
pub fn opening_key(path: &Path) -> Result<ServerOpeningKey, Error> {
    let text = read_secret(path)?;
    let mut seed = Zeroizing::new([0u8; 32]);
    from_hex(text.trim(), seed.as_mut_slice()).ok_or_else(|| Error::Key {
        path: path.to_owned(),
        what: "is not an opening key (64 hexadecimal digits): give the NAME.opening.key of `seco keygen`"
            .to_owned(),
    })?;
    Ok(ServerOpeningKey::from_seed(*seed))
}

/// The sealing key that belongs to the opening key of `path`.
pub fn public_half(key: &ServerOpeningKey, path: &Path) -> Result<ServerSealingKey, Error> {
    let unusable = |_| Error::Key {
        path: path.to_owned(),
        what: "cannot be used as a key: make another with `seco keygen`".to_owned(),
    };
    key.sealing_key().map_err(unusable)
}

/// Reads a sealing key.
pub fn sealing_key(path: &Path) -> Result<ServerSealingKey, Error> {
    let text = read(path)?;
    let text = text.trim();
    let bad = || Error::Key {
        path: path.to_owned(),
        what: "is not a sealing key: give the NAME.sealing.pub of `seco keygen`".to_owned(),
    };
    let mut bytes = vec![0u8; text.len() / 2];
    from_hex(text, &mut bytes).ok_or_else(bad)?;
    ServerSealingKey::from_bytes(&bytes).map_err(|_| bad())
}

/// Reads a file that only this server may read.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, Error> {
    private::close(path)?;
    read(path)
}

fn read(path: &Path) -> Result<Zeroizing<String>, Error> {
    let size = fs::metadata(path).map_err(|e| Error::read(path, e))?.len();
    if size > MAX_FILE {
        return Err(Error::Key {
            path: path.to_owned(),
            what: format!("has {size} bytes, too many for a key: is it the right file?"),
        });
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(|e| Error::read(path, e))
}

/// The start of a model's id in hexadecimal, as logs and metrics name it.
pub fn short(model: &ModelId) -> String {
    to_hex(model.0.get(..4).unwrap_or_default())
}

/// Bytes as lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // The exact capacity: a growing string would leave copies of a secret behind.
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text
}

/// Fills `out` from twice as many hexadecimal digits; `None` if `text` is anything else.
pub fn from_hex(text: &str, out: &mut [u8]) -> Option<()> {
    if text.len() != 2 * out.len() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_keys_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let files = generate(&dir.path().join("new"), "gateway").unwrap();
        certificate(&files.certificate).unwrap();
        tls_key(&files.key).unwrap();
        let opening = opening_key(&files.opening_key).unwrap();
        assert!(sealing_key(&files.sealing_key).unwrap() == opening.sealing_key().unwrap());
        #[cfg(unix)]
        for path in [&files.key, &files.opening_key] {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let again = generate(&dir.path().join("new"), "gateway").unwrap_err().to_string();
        assert!(again.contains("exists already"), "{again}");
    }

    #[test]
    fn certificates_that_devices_cannot_check_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p256.pem");
        let made = rcgen::generate_simple_self_signed(vec![TLS_NAME.to_owned()]).unwrap();
        fs::write(&path, made.cert.pem()).unwrap();
        let error = certificate(&path).unwrap_err().to_string();
        assert!(error.contains("Ed25519"), "{error}");
    }

    /// The present certificate and the next are in one file; what else is in it is passed over as in any PEM file.
    #[test]
    fn a_file_may_have_the_next_certificate_too() {
        let dir = tempfile::tempdir().unwrap();
        let text = |name: &str| {
            let files = generate(dir.path(), name).unwrap();
            (certificate(&files.certificate).unwrap(), fs::read_to_string(files.certificate).unwrap())
        };
        let ((first, one), (second, two), (_, three)) = (text("a"), text("b"), text("c"));
        let path = dir.path().join("all.pem");
        fs::write(&path, format!("{one}the next one\n{two}")).unwrap();
        assert_eq!(certificates(&path).unwrap(), [first.clone(), second]);
        assert_eq!(certificate(&path).unwrap(), first);
        for (text, told) in [
            (format!("{one}{two}{three}"), "more than the present and the next"),
            (String::new(), "no PEM certificate"),
            (one.replace("END", "EMD"), "no PEM certificate"),
        ] {
            fs::write(&path, text).unwrap();
            let error = certificates(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn one_file_is_not_taken_for_another() {
        let dir = tempfile::tempdir().unwrap();
        let files = generate(dir.path(), "s").unwrap();
        assert!(certificate(&files.key).is_err());
        assert!(tls_key(&files.certificate).is_err());
        assert!(opening_key(&files.sealing_key).is_err());
        assert!(sealing_key(&files.opening_key).is_err());
        assert!(certificate(&dir.path().join("absent")).is_err());
        for name in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(generate(dir.path(), name).is_err(), "{name}");
        }
    }

    #[test]
    fn hexadecimal_reads_what_it_writes() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut back = vec![0; 256];
        from_hex(&to_hex(&bytes), &mut back).unwrap();
        assert_eq!(back, bytes);
        assert!(from_hex("0g", &mut [0]).is_none() && from_hex("0", &mut [0]).is_none());
        assert!(from_hex("\u{e9}", &mut [0]).is_none());
    }
}
