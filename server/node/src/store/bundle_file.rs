//! A bundle's file, and the spool that a bundle reads its tables from.
//!
//! # Format, version 2
//!
//! | what | bytes |
//! |---|---|
//! | `SECO stored`, zeros, version | 16 |
//! | the bundle's own key | 32 |
//! | what it belongs to: SHA-256 of cluster, model, split and server | 32 |
//! | the ledger's era in which it was made | 32 |
//! | the version of the protocol between servers in which it was made, little-endian | 2 |
//! | materials in order, then [`Bundle::encode`](seco_protocol::Bundle::encode), then the index, each cut into chunks of 1 MiB | |
//! | bytes of the index | 8 |
//!
//! A chunk is its ciphertext and a tag of 16 bytes: AES-256-GCM under the bundle's key; its nonce is its number in the
//! file (the index counts from 2^63), and the name of the bundle with all before the first chunk, the key apart, is authenticated with each. So a
//! chunk that is changed, swapped, missing or another bundle's is noticed before anything is evaluated. The index has
//! the number of materials (8 bytes), the blocks of each (8) and the bytes of the encoded bundle (8).
//!
//! **The key is in the file that it encrypts** because it is there to be erased: [`erase`] overwrites these 32 bytes,
//! makes that durable and then removes the file, which for the megabytes of a bundle would take long. Who reads the
//! disk before that has the bundle, as he has the server's memory; after it he has nothing, as far as the disk
//! overwrites in place (file systems that copy on write, and flash, keep old blocks for some time). (`ring` does not
//! wipe its copy of the key; the copy that made it is wiped.)

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

use rayon::prelude::*;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use seco_protocol::{BundleId, Material, MaterialSize, Spool, SpoolError};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{Error, keys, private};

/// First bytes of a file: what it is, and the version of its format.
const HEADER: &[u8; 16] = b"SECO stored\0\0\0\0\x02";
const KEY: usize = 32;
/// Bytes before the first chunk.
const START: usize = HEADER.len() + KEY + 32 + 32 + 2;
/// Bytes of plaintext in a chunk.
const CHUNK: usize = 1 << 20;
const TAG: usize = 16;
/// Bytes of a number.
const WORD: usize = 8;
/// Materials that are read ahead of the inference.
const AHEAD: usize = 2;
/// Bytes of a file that is being made after which the system is told to write them. What it has not written when the bundle
/// is used it has to write before the key is erased, while the bundle is read.
const UNWRITTEN: usize = if cfg!(test) { 2 << 20 } else { 16 << 20 };
/// An index of more bytes is none: half a million batches.
const MAX_INDEX: usize = 4 << 20;
/// Number of the index's first chunk, which no other reaches.
const INDEX: u64 = 1 << 63;

/// How much of a server's bundles is in memory too.
pub struct Memory {
    used: AtomicUsize,
    limit: usize,
}

impl Memory {
    /// Room for so many bytes.
    pub fn new(limit: usize) -> Arc<Memory> {
        Arc::new(Memory { used: AtomicUsize::new(0), limit })
    }

    /// Takes room for `bytes`, if there is.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Room for a bundle of so many bytes: none where not all of it fits, for a bundle is used from memory only if it is
    /// whole there.
    pub(super) fn for_bundle(self: &Arc<Memory>, bytes: u64) -> Arc<Memory> {
        let used = self.used.load(Ordering::Relaxed) as u64;
        if used.saturating_add(bytes) <= self.limit as u64 { self.clone() } else { Memory::new(0) }
    }

    /// Gives it back.
    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What a bundle is bound to, besides its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Hash of cluster, model, split and server.
    pub context: [u8; 32],
    /// The ledger's era.
    pub era: [u8; 32],
    /// The version of the protocol between servers in which it is made ([`Versions`](crate::versions::Versions)).
    pub version: u16,
}

impl Origin {
    fn authenticated(&self, id: &BundleId) -> [u8; 32] {
        let hash = Sha256::new().chain_update(HEADER).chain_update(self.context).chain_update(self.era);
        hash.chain_update(self.version.to_le_bytes()).chain_update(id.0).finalize().into()
    }
}

/// The nonce of a chunk.
fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Bytes that so many take in a file.
fn sealed_len(bytes: usize) -> usize {
    bytes.saturating_add(bytes.div_ceil(CHUNK).saturating_mul(TAG))
}

/// Whether an index can have so many bytes: two numbers at least.
fn is_index(bytes: usize) -> bool {
    bytes.is_multiple_of(WORD) && (2 * WORD..=MAX_INDEX).contains(&bytes)
}

/// A file under its key, open at a chunk.
struct Sealed {
    file: File,
    key: LessSafeKey,
    authenticated: [u8; 32],
    /// Number of the next chunk.
    next: u64,
}

impl Sealed {
    /// Encrypts in place and appends.
    fn write(&mut self, bytes: &mut [u8]) -> Result<(), SpoolError> {
        let (key, first, authenticated) = (&self.key, self.next, &self.authenticated);
        let seal = |(number, chunk): (u64, &mut [u8])| {
            key.seal_in_place_separate_tag(nonce(first + number), Aad::from(authenticated), chunk)
        };
        let numbered: Vec<(u64, &mut [u8])> = (0..).zip(bytes.chunks_mut(CHUNK)).collect();
        let tags: Vec<Tag> = numbered
            .into_par_iter()
            .map(seal)
            .collect::<Result<_, _>>()
            .map_err(|_| SpoolError("encrypting a bundle failed".to_owned()))?;
        // Before anything can fail: no number is used for other bytes.
        self.next += tags.len() as u64;
        for (chunk, tag) in bytes.chunks(CHUNK).zip(&tags) {
            self.file.write_all(chunk).and_then(|()| self.file.write_all(tag.as_ref())).map_err(disk)?;
        }
        Ok(())
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), SpoolError> {
        for chunk in bytes.chunks_mut(CHUNK) {
            let mut tag = [0; TAG];
            self.file.read_exact(chunk).and_then(|()| self.file.read_exact(&mut tag)).map_err(disk)?;
            self.key
                .open_in_place_separate_tag(
                    nonce(self.next),
                    Aad::from(&self.authenticated),
                    Tag::from(tag),
                    chunk,
                    0..,
                )
                .map_err(|_| SpoolError("a bundle's file was changed on disk".to_owned()))?;
            self.next += 1;
        }
        Ok(())
    }

    /// Goes to a chunk.
    fn seek(&mut self, chunk: u64, place: u64) -> Result<(), SpoolError> {
        self.file.seek(SeekFrom::Start(place)).map_err(disk)?;
        self.next = chunk;
        Ok(())
    }
}

fn disk(error: io::Error) -> SpoolError {
    SpoolError(format!("a bundle's file: {error}"))
}

fn unbound(key: &[u8; KEY]) -> Result<LessSafeKey, SpoolError> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|e| SpoolError(e.to_string()))
}

/// Has what was written of a file brought to the disk, on a thread of its own, as far as the disk keeps up. How it goes does
/// not matter: see [`Draft::finish`]. The key, too, reaches the disk by that, if the system had not written it yet: it is
/// erased there.
#[derive(Default)]
struct Flusher {
    unwritten: usize,
    /// Once there was enough.
    thread: Option<mpsc::SyncSender<()>>,
}

impl Flusher {
    /// So many bytes more were written.
    fn wrote(&mut self, file: &File, bytes: usize) {
        self.unwritten = self.unwritten.saturating_add(bytes);
        if self.unwritten < UNWRITTEN {
            return;
        }
        if self.thread.is_none() {
            let Ok(file) = file.try_clone() else { return };
            // One that waits is for all that was written before it begins.
            let (sender, asked) = mpsc::sync_channel(1);
            let work = move || asked.iter().for_each(|()| drop(file.sync_data()));
            self.thread = thread::Builder::new().name("flusher".to_owned()).spawn(work).ok().map(|_| sender);
        }
        if self.thread.as_ref().is_some_and(|thread| thread.try_send(()).is_ok()) {
            self.unwritten = 0;
        }
    }

    /// There will be no more: the rest too, where any of it was.
    fn end(&mut self) {
        let _ = self.thread.take().map(|thread| thread.try_send(()));
    }
}

/// A file that is being written. Dropped unfinished, it is removed.
struct Writer {
    path: PathBuf,
    /// None once all is in memory.
    sealed: Option<Sealed>,
    flusher: Flusher,
    sizes: Vec<MaterialSize>,
    /// Whether the spool has all in memory.
    kept: bool,
    finished: bool,
}

/// The file of a bundle that is being made; shared with its spool.
pub struct Draft(Arc<Mutex<Writer>>);

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Draft {
    /// Begins a file in `folder`. The bundle that is made with the spool goes to [`Draft::finish`].
    pub fn begin(
        folder: &Path,
        id: BundleId,
        origin: &Origin,
        memory: &Arc<Memory>,
    ) -> Result<(Draft, FileSpool), Error> {
        let path = folder.join(format!("{}.part", keys::to_hex(&id.0)));
        let failed = |e: io::Error| Error::write(&path, e);
        let mut file =
            private::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
        let key = keys::secret()?;
        let start: Zeroizing<Vec<u8>> = Zeroizing::new(
            [&HEADER[..], &*key, &origin.context, &origin.era, &origin.version.to_le_bytes()].concat(),
        );
        let written = file.write_all(&start).and_then(|()| unbound(&key).map_err(io::Error::other));
        let key = written.map_err(|e| {
            let _ = erase(&path);
            failed(e)
        })?;
        let sealed = Some(Sealed { file, key, authenticated: origin.authenticated(&id), next: 0 });
        let (flusher, sizes) = Default::default();
        let writer = Writer { path, sealed, flusher, sizes, kept: true, finished: false };
        let writer = Arc::new(Mutex::new(writer));
        let spool = FileSpool {
            source: Source::Writing(writer.clone()),
            memory: memory.clone(),
            kept: VecDeque::new(),
            keeps: true,
            taken: 0,
            blank: Material::default(),
            reader: None,
            given_back: Blanks::default(),
        };
        Ok((Draft(writer), spool))
    }

    /// Writes the rest and gives the file its name: from now on it is a bundle that can be found. Gives its bytes.
    ///
    /// Not synchronised: what a power cut tears is noticed when it is read, and no bundle is owed to anybody.
    pub fn finish(&self, encoded: &mut [u8]) -> Result<u64, SpoolError> {
        let mut writer = locked(&self.0);
        let length = encoded.len();
        let gone = || SpoolError("a bundle was finished twice".to_owned());
        let mut sealed = writer.sealed.take().ok_or_else(gone)?;
        sealed.write(encoded)?;
        let numbers =
            [writer.sizes.len()].into_iter().chain(writer.sizes.iter().map(|s| s.tables)).chain([length]);
        let mut index: Vec<u8> = numbers.flat_map(|number| (number as u64).to_le_bytes()).collect();
        let length = index.len() as u64;
        sealed.next = INDEX;
        sealed.write(&mut index)?;
        sealed.file.write_all(&length.to_le_bytes()).map_err(disk)?;
        let bytes = sealed.file.stream_position().map_err(disk)?;
        let path = writer.path.with_extension("bundle");
        fs::rename(&writer.path, &path).map_err(disk)?;
        writer.path = path;
        writer.finished = true;
        writer.flusher.end();
        // What is in memory needs no handle.
        writer.sealed = Some(sealed).filter(|_| !writer.kept);
        Ok(bytes)
    }

    /// Whether all of the material is in memory too.
    pub fn is_in_memory(&self) -> bool {
        locked(&self.0).kept
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        locked(&self.0).path.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody reads it any more: what the system has not written to the disk yet, it need not write.
            let _ = destroy(&self.path, |file| file.set_len(START as u64));
        }
    }
}

/// Destroys a bundle's file: first its key, durably, then the file. Nothing if there is none.
pub fn erase(path: &Path) -> io::Result<()> {
    destroy(path, |_| Ok(()))
}

/// The same, with something to do when the key is overwritten, before that is durable.
fn destroy(path: &Path, also: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {}
        // Nothing of ours.
        Ok(_) => return Err(io::Error::other("is no file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    let mut file = File::options().write(true).open(path)?;
    // Never beyond the end of a file that was torn, or is something else.
    if file.metadata()?.len() >= START as u64 {
        file.seek(SeekFrom::Start(HEADER.len() as u64))?;
        file.write_all(&[0; KEY])?;
        // Whether or not: the key goes.
        let also = also(&file);
        file.sync_data()?;
        also?;
    }
    fs::remove_file(path)
}

/// What a stored file says it belongs to; `None` if it is no bundle's of this version, or not whole.
pub fn origin(path: &Path) -> Option<(Origin, u64)> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let start = read_start(&mut file).ok()??;
    let mut last = [0; WORD];
    file.seek(SeekFrom::Start(length.checked_sub(WORD as u64)?)).ok()?;
    file.read_exact(&mut last).ok()?;
    let index = usize::try_from(u64::from_le_bytes(last)).ok().filter(|&bytes| is_index(bytes))?;
    (length >= (START + sealed_len(index) + WORD) as u64).then_some((start.1, length))
}

/// Key and origin.
fn read_start(file: &mut File) -> io::Result<Option<(Zeroizing<[u8; KEY]>, Origin)>> {
    let mut start = Zeroizing::new([0; START]);
    file.read_exact(&mut *start)?;
    let mut key = Zeroizing::new([0; KEY]);
    let (header, rest) = start.split_at(HEADER.len());
    let (secret, rest) = rest.split_at(KEY);
    key.copy_from_slice(secret);
    let (context, rest) = rest.split_at(32);
    let (era, version) = rest.split_at(32);
    let mut origin = Origin { context: [0; 32], era: [0; 32], version: 0 };
    origin.context.copy_from_slice(context);
    origin.era.copy_from_slice(era);
    origin.version = version.iter().rev().fold(0, |number, byte| number << 8 | u16::from(*byte));
    // An erased key belongs to a bundle that was spent.
    Ok((header == HEADER && *key != [0; KEY]).then_some((key, origin)))
}

/// Opens a stored bundle: its encoded part, and the spool with the rest.
pub fn open(
    path: &Path,
    id: BundleId,
    expected: &Origin,
    memory: &Arc<Memory>,
) -> Result<(Zeroizing<Vec<u8>>, FileSpool), SpoolError> {
    let damaged = || SpoolError("a bundle's file is damaged".to_owned());
    let mut file = File::open(path).map_err(disk)?;
    let length = file.metadata().map_err(disk)?.len();
    let (key, origin) = read_start(&mut file).map_err(disk)?.ok_or_else(damaged)?;
    if origin != *expected {
        return Err(damaged());
    }
    let mut last = [0; WORD];
    let tail = length.checked_sub(WORD as u64).ok_or_else(damaged)?;
    file.seek(SeekFrom::Start(tail)).and_then(|_| file.read_exact(&mut last)).map_err(disk)?;
    let index_len = usize::try_from(u64::from_le_bytes(last)).ok().filter(|&bytes| is_index(bytes));
    let index_len = index_len.ok_or_else(damaged)?;
    let index_at = tail.checked_sub(sealed_len(index_len) as u64).ok_or_else(damaged)?;
    let key = unbound(&key)?;
    let mut sealed = Sealed { file, key, authenticated: origin.authenticated(&id), next: 0 };
    let mut index = vec![0; index_len];
    sealed.seek(INDEX, index_at)?;
    sealed.read(&mut index)?;
    let numbers: Vec<usize> = (index.as_chunks::<WORD>().0.iter())
        .map(|word| usize::try_from(u64::from_le_bytes(*word)).map_err(|_| damaged()))
        .collect::<Result<_, _>>()?;
    let [count, sizes @ .., encoded] = &numbers[..] else { return Err(damaged()) };
    let sizes: Vec<MaterialSize> = sizes.iter().map(|&tables| MaterialSize { tables }).collect();
    let (chunk, place) = after(&sizes).filter(|_| *count == sizes.len()).ok_or_else(damaged)?;
    // So nothing is held that the file does not have.
    if place.checked_add(sealed_len(*encoded) as u64) != Some(index_at) {
        return Err(damaged());
    }
    let mut bytes = Zeroizing::new(vec![0; *encoded]);
    sealed.seek(chunk, place)?;
    sealed.read(&mut bytes)?;
    let spool = FileSpool {
        source: Source::Reading(Some((Box::new(sealed), sizes))),
        memory: memory.clone(),
        kept: VecDeque::new(),
        keeps: false,
        taken: 0,
        blank: Material::default(),
        reader: None,
        given_back: Blanks::default(),
    };
    Ok((bytes, spool))
}

/// Number and place of the chunk after these materials.
fn after(sizes: &[MaterialSize]) -> Option<(u64, u64)> {
    sizes.iter().try_fold((0u64, START as u64), |(chunk, place), size| {
        let bytes = size.tables.checked_mul(16)?;
        let place = place.checked_add(sealed_len(bytes) as u64)?;
        Some((chunk + bytes.div_ceil(CHUNK) as u64, place))
    })
}

/// One bundle's material: all of it in a file, and, until the bundle is complete, its beginning in memory too, as far as
/// there is room. A complete bundle stays in memory if all of it is there.
pub struct FileSpool {
    source: Source,
    memory: Arc<Memory>,
    kept: VecDeque<Material>,
    /// Whether all so far was kept.
    keeps: bool,
    /// Materials that were taken.
    taken: usize,
    /// What was written last: memory for the next.
    blank: Material,
    /// Once something was taken from the file.
    reader: Option<mpsc::Receiver<Result<Material, SpoolError>>>,
    /// Memory of what was taken and given back, for what is still to be read; [`AHEAD`] at most.
    given_back: Blanks,
}

type Blanks = Arc<Mutex<Vec<Material>>>;

enum Source {
    /// The process that made it.
    Writing(Arc<Mutex<Writer>>),
    /// What was there; gone once it is read.
    Reading(Option<(Box<Sealed>, Vec<MaterialSize>)>),
}

impl Spool for FileSpool {
    fn blank(&mut self) -> Material {
        std::mem::take(&mut self.blank)
    }

    fn put(&mut self, mut material: Material) -> Result<(), SpoolError> {
        let Source::Writing(writer) = &self.source else {
            return Err(SpoolError("the bundle is complete".to_owned()));
        };
        let writer = &mut *locked(writer);
        self.keeps = self.keeps && self.memory.take(material.bytes().len());
        if self.keeps {
            let mut copy = Material::zeros(material.size());
            copy.bytes_mut().copy_from_slice(material.bytes());
            self.kept.push_back(copy);
        }
        writer.kept = self.keeps;
        writer.sizes.push(material.size());
        let sealed = writer.sealed.as_mut().ok_or_else(|| SpoolError("the bundle is complete".to_owned()))?;
        sealed.write(material.bytes_mut())?;
        writer.flusher.wrote(&sealed.file, material.bytes().len());
        self.blank = material;
        Ok(())
    }

    fn take(&mut self) -> Result<Material, SpoolError> {
        self.blank = Material::default();
        self.taken += 1;
        if let Some(material) = self.kept.pop_front() {
            self.memory.give_back(material.bytes().len());
            return Ok(material);
        }
        if self.reader.is_none() {
            self.reader = Some(self.read_rest()?);
        }
        let next = self.reader.as_ref().and_then(|reader| reader.recv().ok());
        next.unwrap_or_else(|| Err(SpoolError("the spool has no more material".to_owned())))
    }

    fn give_back(&mut self, material: Material) {
        let mut blanks = locked(&self.given_back);
        if blanks.len() < AHEAD {
            blanks.push(material);
        }
    }
}

impl FileSpool {
    /// Reads what was not kept, on a thread of its own, a little ahead of whoever takes it.
    fn read_rest(&mut self) -> Result<mpsc::Receiver<Result<Material, SpoolError>>, SpoolError> {
        let (mut sealed, sizes) = match &mut self.source {
            Source::Writing(writer) => {
                let writer = locked(writer);
                let beyond = || SpoolError("the spool has no more material".to_owned());
                let Sealed { file, key, authenticated, .. } = writer.sealed.as_ref().ok_or_else(beyond)?;
                let file = file.try_clone().map_err(disk)?;
                let sealed = Sealed { file, key: key.clone(), authenticated: *authenticated, next: 0 };
                (Box::new(sealed), writer.sizes.clone())
            }
            Source::Reading(stored) => {
                stored.take().ok_or_else(|| SpoolError("a bundle was read twice".to_owned()))?
            }
        };
        let beyond = || SpoolError("the spool has no more material".to_owned());
        let (before, rest) = sizes.split_at_checked(self.taken - 1).ok_or_else(beyond)?;
        let (chunk, place) = after(before).ok_or_else(beyond)?;
        sealed.seek(chunk, place)?;
        let rest = rest.to_vec();
        let blanks = self.given_back.clone();
        let (sender, receiver) = mpsc::sync_channel(AHEAD - 1);
        let read = move || {
            for size in rest {
                let blank = locked(&blanks).pop().unwrap_or_default();
                let mut material = blank.resized(size);
                let material = sealed.read(material.bytes_mut()).map(|()| material);
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
}

impl Drop for FileSpool {
    fn drop(&mut self) {
        self.kept.iter().for_each(|material| self.memory.give_back(material.bytes().len()));
    }
}

#[cfg(test)]
mod tests;
