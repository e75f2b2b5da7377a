//! Bundles larger than memory: [`seco_protocol::Spool`] with a limit, beyond which material goes to a
//! file.
//!
//! # Format, version 1
//!
//! The file begins with [`HEADER`]. After it each material, in order, is cut into chunks of
//! [`CHUNK`] bytes, the last of a material shorter: ciphertext, then a tag of 16 bytes. AES-256-GCM
//! under the bundle's key; a chunk's nonce is its number in the file, the header is authenticated with
//! each. So a chunk that is changed, swapped or missing is noticed before anything is evaluated.
//!
//! The key is drawn for each bundle and stays in this server's memory, for a bundle does not outlive
//! the process that made it: after a crash it counts as spent (section 7 of PROTOCOL.md). On Unix the
//! file has no name, so that the system takes it back whatever happens to the process. (`ring` does not
//! wipe its copy of the key; the copy that made it is wiped.)

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use rayon::prelude::*;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use seco_protocol::{Material, MaterialSize, Spool, SpoolError};

use crate::{keys, private};

/// First bytes of a file: what it is, and the version of its format.
const HEADER: &[u8; 16] = b"SECO spool\0\0\0\0\0\x01";
/// Bytes of plaintext in a chunk.
const CHUNK: usize = 1 << 20;
const TAG: usize = 16;
/// Materials that are read ahead of the inference.
const AHEAD: usize = 2;

/// Makes the spools of one server, which together keep at most a given number of bytes in memory.
pub struct Spools {
    directory: PathBuf,
    memory: Arc<Memory>,
}

/// What all spools of a server share.
struct Memory {
    used: AtomicUsize,
    limit: usize,
}

impl Memory {
    /// Takes room for `bytes`, if there is.
    fn take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Spools {
    /// Spools with files in `directory` once `limit` bytes are in memory.
    pub fn new(directory: PathBuf, limit: usize) -> Self {
        Self { directory, memory: Arc::new(Memory { used: AtomicUsize::new(0), limit }) }
    }

    /// An empty spool for one bundle.
    pub fn spool(&self) -> FileSpool {
        FileSpool {
            directory: self.directory.clone(),
            memory: self.memory.clone(),
            items: VecDeque::new(),
            blank: Material::default(),
            file: None,
            reader: None,
        }
    }
}

/// One bundle's material: in memory as far as there is room, then in a file.
pub struct FileSpool {
    directory: PathBuf,
    memory: Arc<Memory>,
    items: VecDeque<Item>,
    /// What was written last: memory for the next.
    blank: Material,
    file: Option<Sealed>,
    /// Once something was taken.
    reader: Option<mpsc::Receiver<Result<Material, SpoolError>>>,
}

enum Item {
    Memory(Material),
    File(MaterialSize),
}

/// A file under its key.
struct Sealed {
    file: File,
    key: LessSafeKey,
    /// Number of the next chunk.
    next: u64,
}

impl Spool for FileSpool {
    fn blank(&mut self) -> Material {
        std::mem::take(&mut self.blank)
    }

    fn put(&mut self, mut material: Material) -> Result<(), SpoolError> {
        if self.memory.take(material.bytes().len()) {
            self.items.push_back(Item::Memory(material));
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(Sealed::create(&self.directory)?),
        };
        let size = material.size();
        file.write(material.bytes_mut())?;
        self.items.push_back(Item::File(size));
        self.blank = material;
        Ok(())
    }

    fn take(&mut self) -> Result<Material, SpoolError> {
        if let Some(file) = self.file.take() {
            self.blank = Material::default();
            let sizes = self.items.iter().filter_map(|item| match item {
                Item::File(size) => Some(*size),
                Item::Memory(_) => None,
            });
            self.reader = Some(file.read_all(sizes.collect())?);
        }
        match self.items.pop_front() {
            Some(Item::Memory(material)) => {
                self.memory.give_back(material.bytes().len());
                Ok(material)
            }
            Some(Item::File(_)) => {
                let next = self.reader.as_ref().and_then(|reader| reader.recv().ok());
                next.unwrap_or_else(|| Err(SpoolError("reading a bundle ended early".to_owned())))
            }
            None => Err(SpoolError("the spool has no more material".to_owned())),
        }
    }
}

impl Drop for FileSpool {
    fn drop(&mut self) {
        for item in &self.items {
            if let Item::Memory(material) = item {
                self.memory.give_back(material.bytes().len());
            }
        }
    }
}

/// The nonce of a chunk.
fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl Sealed {
    fn create(directory: &std::path::Path) -> Result<Self, SpoolError> {
        let failed = |e: std::io::Error| {
            SpoolError(format!("a bundle's file in {} cannot be made: {e}", directory.display()))
        };
        let mut file = tempfile::tempfile_in(directory).map_err(failed)?;
        private::close_file(&file).map_err(failed)?;
        file.write_all(HEADER).map_err(failed)?;
        let key = keys::secret().map_err(|e| SpoolError(e.to_string()))?;
        let key = UnboundKey::new(&AES_256_GCM, &*key).map_err(|e| SpoolError(e.to_string()))?;
        Ok(Self { file, key: LessSafeKey::new(key), next: 0 })
    }

    /// Encrypts in place and appends.
    fn write(&mut self, bytes: &mut [u8]) -> Result<(), SpoolError> {
        let (key, first) = (&self.key, self.next);
        let seal = |(number, chunk): (u64, &mut [u8])| {
            key.seal_in_place_separate_tag(nonce(first + number), Aad::from(HEADER), chunk)
        };
        let numbered: Vec<(u64, &mut [u8])> = (0..).zip(bytes.chunks_mut(CHUNK)).collect();
        let tags: Vec<Tag> = numbered
            .into_par_iter()
            .map(seal)
            .collect::<Result<_, _>>()
            .map_err(|_| SpoolError("encrypting a bundle failed".to_owned()))?;
        for (chunk, tag) in bytes.chunks(CHUNK).zip(&tags) {
            self.file.write_all(chunk).and_then(|()| self.file.write_all(tag.as_ref())).map_err(disk)?;
        }
        self.next += tags.len() as u64;
        Ok(())
    }

    /// Reads everything back on a thread of its own, a little ahead of whoever takes it.
    fn read_all(
        mut self,
        sizes: Vec<MaterialSize>,
    ) -> Result<mpsc::Receiver<Result<Material, SpoolError>>, SpoolError> {
        self.file.seek(SeekFrom::Start(HEADER.len() as u64)).map_err(disk)?;
        self.next = 0;
        let (sender, receiver) = mpsc::sync_channel(AHEAD - 1);
        let read = move || {
            for size in sizes {
                let material = self.read(size);
                let failed = material.is_err();
                // Nobody listens any more when the inference was given up.
                if sender.send(material).is_err() || failed {
                    return;
                }
            }
        };
        thread::Builder::new().name("spool".to_owned()).spawn(read).map_err(disk)?;
        Ok(receiver)
    }

    fn read(&mut self, size: MaterialSize) -> Result<Material, SpoolError> {
        let mut material = Material::zeros(size);
        for chunk in material.bytes_mut().chunks_mut(CHUNK) {
            let mut tag = [0; TAG];
            self.file.read_exact(chunk).and_then(|()| self.file.read_exact(&mut tag)).map_err(disk)?;
            self.key
                .open_in_place_separate_tag(nonce(self.next), Aad::from(HEADER), Tag::from(tag), chunk, 0..)
                .map_err(|_| SpoolError("a bundle's file was changed on disk".to_owned()))?;
            self.next += 1;
        }
        Ok(material)
    }
}

fn disk(error: std::io::Error) -> SpoolError {
    SpoolError(format!("a bundle's file: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material(blocks: usize, fill: u8) -> Material {
        let mut material = Material::zeros(MaterialSize { tables: blocks });
        material.bytes_mut().iter_mut().enumerate().for_each(|(i, byte)| *byte = fill ^ i as u8);
        material
    }

    /// Sizes around the chunk's, in blocks of 16 bytes.
    const SIZES: [usize; 6] = [0, 1, CHUNK / 16 - 1, CHUNK / 16, CHUNK / 16 + 1, 3 * CHUNK / 16 + 7];

    fn filled(spools: &Spools) -> FileSpool {
        let mut spool = spools.spool();
        for (i, &blocks) in SIZES.iter().enumerate() {
            spool.put(material(blocks, i as u8)).unwrap();
        }
        spool
    }

    #[test]
    fn what_was_put_comes_back_in_order_wherever_it_was() {
        let folder = tempfile::tempdir().unwrap();
        for limit in [0, CHUNK, 3 * CHUNK, usize::MAX] {
            let spools = Spools::new(folder.path().to_owned(), limit);
            let mut spool = filled(&spools);
            assert_eq!(spool.file.is_none(), limit == usize::MAX);
            for (i, &blocks) in SIZES.iter().enumerate() {
                let got = spool.take().unwrap();
                assert!(got.bytes() == material(blocks, i as u8).bytes(), "{i} with {limit}");
            }
            assert!(spool.take().is_err());
            assert_eq!(spools.memory.used.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn memory_is_shared_and_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let spools = Spools::new(folder.path().to_owned(), 4 * CHUNK);
        let (mut first, mut second) = (spools.spool(), spools.spool());
        first.put(material(3 * CHUNK / 16, 1)).unwrap();
        second.put(material(3 * CHUNK / 16, 2)).unwrap();
        assert!(first.file.is_none() && second.file.is_some());
        drop(first);
        second.put(material(3 * CHUNK / 16, 3)).unwrap();
        assert!(matches!(second.items[1], Item::Memory(_)));
        for fill in [2, 3] {
            assert!(second.take().unwrap().bytes() == material(3 * CHUNK / 16, fill).bytes());
        }
    }

    #[test]
    fn a_file_that_was_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let spools = Spools::new(folder.path().to_owned(), 0);
        let length: usize = SIZES.iter().map(|blocks| blocks * 16).sum();
        for place in [16, 16 + CHUNK, length] {
            let mut spool = filled(&spools);
            let file = &mut spool.file.as_mut().unwrap().file;
            let mut byte = [0];
            file.seek(SeekFrom::Start(place as u64)).unwrap();
            file.read_exact(&mut byte).unwrap();
            file.seek(SeekFrom::Start(place as u64)).unwrap();
            file.write_all(&[byte[0] ^ 1]).unwrap();
            assert!(SIZES.iter().any(|_| spool.take().is_err()), "byte {place}");
        }
        // Cut short, and chunks in another order.
        let mut spool = filled(&spools);
        spool.file.as_mut().unwrap().file.set_len(length as u64 / 2).unwrap();
        assert!(SIZES.iter().any(|_| spool.take().is_err()));
        let mut spool = spools.spool();
        spool.put(material(CHUNK / 16, 1)).unwrap();
        spool.put(material(CHUNK / 16, 2)).unwrap();
        let file = &mut spool.file.as_mut().unwrap().file;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(16)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes.rotate_left(CHUNK + TAG);
        file.seek(SeekFrom::Start(16)).unwrap();
        file.write_all(&bytes).unwrap();
        assert!(spool.take().is_err());
    }

    #[test]
    fn nothing_readable_is_on_disk_and_no_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let spools = Spools::new(folder.path().to_owned(), 0);
        let mut spool = spools.spool();
        // A chunk, and part of another.
        spool.put(Material::zeros(MaterialSize { tables: CHUNK / 16 + 100 })).unwrap();
        let file = &mut spool.file.as_mut().unwrap().file;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(&bytes[..16], HEADER);
        assert_eq!(bytes.len(), 16 + 1600 + CHUNK + 2 * TAG);
        let zeros = bytes[16..].iter().filter(|&&b| b == 0).count();
        assert!((CHUNK / 512..CHUNK / 128).contains(&zeros), "{zeros}");
        #[cfg(unix)]
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Spools::new(folder.path().join("absent"), 0).spool().put(material(1, 1)).is_err());
    }
}
