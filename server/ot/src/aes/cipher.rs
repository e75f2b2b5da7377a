//! Choice of the kernels at run time.
#![allow(unsafe_code)] // Calls kernels whose instructions were detected; nothing else here is unsafe.

use core::ops::Range;
use std::sync::OnceLock;

use super::portable::{self, Portable};
use super::{Chunk, Kernel};
#[cfg(target_arch = "x86_64")]
use super::{RoundKeys, aesni, vaes};
#[cfg(target_arch = "aarch64")]
use super::{RoundKeys, armv8};
use crate::Block;

/// A set of kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backend {
    Portable,
    #[cfg(target_arch = "x86_64")]
    AesNi,
    #[cfg(target_arch = "x86_64")]
    Vaes,
    #[cfg(target_arch = "aarch64")]
    Armv8,
}

impl Backend {
    /// Every set that this processor can run, the fastest last.
    pub(crate) fn available() -> Vec<Self> {
        let candidates = [
            (Self::Portable, true),
            #[cfg(target_arch = "x86_64")]
            (Self::AesNi, aesni::available()),
            #[cfg(target_arch = "x86_64")]
            (Self::Vaes, vaes::available()),
            #[cfg(target_arch = "aarch64")]
            (Self::Armv8, armv8::available()),
        ];
        candidates.into_iter().filter(|(_, available)| *available).map(|(backend, _)| backend).collect()
    }

    /// The fastest set, or the portable one if `SECO_PORTABLE=1`; decided once per process.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Backend> = OnceLock::new();
        *BEST.get_or_init(|| {
            if std::env::var_os("SECO_PORTABLE").is_some_and(|v| v == "1") {
                return Self::Portable;
            }
            Self::available().last().copied().unwrap_or(Self::Portable)
        })
    }
}

/// The permutation of AES-128 under one key.
#[derive(Clone)]
pub(crate) struct Cipher(One);

/// AES-128 in counter mode under any number of keys. The vector kernels count in 64 bits: within a call no
/// counter may carry from the low into the high half.
pub(crate) struct Keystreams(Many);

// SAFETY of every call below: a variant other than `Portable` is built in the constructors alone, from a
// `Backend` that `Backend::available` found on this processor.
#[derive(Clone)]
enum One {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    AesNi(RoundKeys),
    #[cfg(target_arch = "x86_64")]
    Vaes(RoundKeys),
    #[cfg(target_arch = "aarch64")]
    Armv8(RoundKeys),
}

enum Many {
    Portable(Vec<Portable>),
    #[cfg(target_arch = "x86_64")]
    AesNi(Vec<RoundKeys>),
    #[cfg(target_arch = "x86_64")]
    Vaes(Vec<RoundKeys>),
    #[cfg(target_arch = "aarch64")]
    Armv8(Vec<RoundKeys>),
}

macro_rules! dispatch {
    ($kind:ident, $keys:expr, $kernel:ident($($argument:expr),*)) => {
        match $keys {
            $kind::Portable(keys) => portable::$kernel(keys, $($argument),*),
            // SAFETY: see `One`.
            #[cfg(target_arch = "x86_64")]
            $kind::AesNi(keys) => unsafe { aesni::$kernel(keys, $($argument),*) },
            // SAFETY: see `One`.
            #[cfg(target_arch = "x86_64")]
            $kind::Vaes(keys) => unsafe { vaes::$kernel(keys, $($argument),*) },
            // SAFETY: see `One`.
            #[cfg(target_arch = "aarch64")]
            $kind::Armv8(keys) => unsafe { armv8::$kernel(keys, $($argument),*) },
        }
    };
}

impl Cipher {
    /// Expands `key` for `backend`, which must be one of [`Backend::available`].
    pub(crate) fn new(key: Block, backend: Backend) -> Self {
        Self(match backend {
            Backend::Portable => One::Portable(Portable::new(key)),
            // SAFETY: see `One`.
            #[cfg(target_arch = "x86_64")]
            Backend::AesNi => One::AesNi(unsafe { aesni::expand(key) }),
            // SAFETY: see `One`; `vaes::available` includes `aesni::available`.
            #[cfg(target_arch = "x86_64")]
            Backend::Vaes => One::Vaes(unsafe { aesni::expand(key) }),
            // SAFETY: see `One`.
            #[cfg(target_arch = "aarch64")]
            Backend::Armv8 => One::Armv8(unsafe { armv8::expand(key) }),
        })
    }

    /// Runs `kernel` with the vectors of the backend.
    pub(crate) fn run<K: Kernel>(&self, kernel: K) -> K::Output {
        dispatch!(One, &self.0, run(kernel))
    }
}

impl Keystreams {
    /// Expands the secret `keys` for `backend`, which must be one of [`Backend::available`].
    pub(crate) fn new(keys: &[Block], backend: Backend) -> Self {
        let keys = keys.iter();
        Self(match backend {
            Backend::Portable => Many::Portable(keys.map(|key| Portable::new(*key)).collect()),
            // SAFETY: see `One`.
            #[cfg(target_arch = "x86_64")]
            Backend::AesNi => Many::AesNi(keys.map(|key| unsafe { aesni::expand(*key) }).collect()),
            // SAFETY: see `One`; `vaes::available` includes `aesni::available`.
            #[cfg(target_arch = "x86_64")]
            Backend::Vaes => Many::Vaes(keys.map(|key| unsafe { aesni::expand(*key) }).collect()),
            // SAFETY: see `One`.
            #[cfg(target_arch = "aarch64")]
            Backend::Armv8 => Many::Armv8(keys.map(|key| unsafe { armv8::expand(*key) }).collect()),
        })
    }

    /// Streams of the given keys, each from `counter` on: `dst` falls into equal parts, one for each key in
    /// turn.
    pub(crate) fn fill(&self, range: Range<usize>, counter: u128, dst: &mut [Chunk]) {
        dispatch!(Many, &self.0, keystreams(range, counter, dst));
    }
}
