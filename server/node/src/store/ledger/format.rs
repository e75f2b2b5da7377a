//! The ledger's file, version 3, and reading versions 1 and 2.
//!
//! A header of 16 bytes, then records of equal length: kind (1 byte), body (56), check (8). The first record
//! is a base: the head that the ledger begins with, how many records of sessions follow it, which name the
//! sessions used before it, the one used last at the end, and how many records of bundles follow these, which were
//! ready when it was written (none in version 2). After these come the spends, whose check is the
//! start of the chain's hash after them; the check of other records is the start of their own hash.

use std::io::{self, Read};

use seco_protocol::{BundleId, Use};
use sha2::{Digest as _, Sha256};

use super::head::Head;

pub(super) const HEADER: &[u8; 16] = b"seco ledger v3\n\0";
pub(super) const HEADER_V2: &[u8; 16] = b"seco ledger v2\n\0";
pub(super) const HEADER_V1: &[u8; 16] = b"seco ledger v1\n\0";
pub(super) const BODY: usize = 56;
pub(super) const RECORD: usize = 1 + BODY + CHECK;
const CHECK: usize = 8;
/// No ledger has as many entries: a base that says so is damaged, and what follows it can be counted.
const MAX_COUNT: u64 = 1 << 62;
const BASE: u8 = 1;
const SESSION: u8 = 2;
const SPENT: u8 = 3;
const READY: u8 = 4;

/// What a file holds.
pub(super) struct Contents {
    pub(super) head: Head,
    /// The chain that the file begins with.
    pub(super) era: [u8; 32],
    /// Bundles that were ready when the file was written.
    pub(super) ready: Vec<BundleId>,
    /// Bytes that are whole: all of the file, or all but a last record that was torn.
    pub(super) length: u64,
    pub(super) bundles: Vec<BundleId>,
    /// Sessions used, the last at the end; may name one more than once.
    pub(super) sessions: Vec<[u8; 16]>,
    /// The chain at the count that was asked for, if the file reaches from before to beyond it.
    pub(super) chain_there: Option<[u8; 32]>,
}

/// Why a file cannot be read.
pub(super) enum Damage {
    At(u64),
    Io(io::Error),
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Damage::Io(error)
    }
}

pub(super) fn base(head: &Head, sessions: usize, bundles: usize) -> [u8; RECORD] {
    let mut body = [0; BODY];
    body[..8].copy_from_slice(&head.count.to_le_bytes());
    body[8..40].copy_from_slice(&head.chain);
    body[40..48].copy_from_slice(&(sessions as u64).to_le_bytes());
    body[48..].copy_from_slice(&(bundles as u64).to_le_bytes());
    sealed(BASE, &body)
}

pub(super) fn session(session: &[u8; 16]) -> [u8; RECORD] {
    let mut body = [0; BODY];
    body[..16].copy_from_slice(session);
    sealed(SESSION, &body)
}

pub(super) fn ready(bundle: &BundleId) -> [u8; RECORD] {
    let mut body = [0; BODY];
    body[..16].copy_from_slice(&bundle.0);
    sealed(READY, &body)
}

/// A spend after `head`, and the head after it.
pub(super) fn spend(head: &Head, bundle: &BundleId, usage: &Use) -> ([u8; RECORD], Head) {
    let mut record = [0; RECORD];
    record[0] = SPENT;
    record[1..17].copy_from_slice(&bundle.0);
    record[17..33].copy_from_slice(&usage.session);
    record[33..49].copy_from_slice(&usage.incarnation);
    record[49..57].copy_from_slice(&usage.counter.to_le_bytes());
    let head = head.after(&record[..=BODY]);
    record[1 + BODY..].copy_from_slice(&head.chain[..CHECK]);
    (record, head)
}

fn sealed(kind: u8, body: &[u8; BODY]) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[0] = kind;
    record[1..=BODY].copy_from_slice(body);
    let digest = Sha256::digest(&record[..=BODY]);
    record[1 + BODY..].copy_from_slice(&digest[..CHECK]);
    record
}

/// `N` bytes from `at` on.
fn part<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    if let Some(source) = record.get(at..at + N) {
        bytes.copy_from_slice(source);
    }
    bytes
}

/// A record that carries its own check, if it is whole and of this kind.
fn own<const N: usize>(record: &[u8; N], kind: u8) -> bool {
    let (content, check) = record.split_at(N - CHECK);
    record[0] == kind && Sha256::digest(content)[..CHECK] == *check
}

/// Reads a file of `size` bytes whose header was read, and looks for the chain at `count`.
pub(super) fn read(input: &mut impl Read, size: u64, count: Option<u64>) -> Result<Contents, Damage> {
    let mut record = [0; RECORD];
    let mut length = HEADER.len() as u64;
    let mut next = |length: &mut u64, record: &mut [u8; RECORD]| -> Result<bool, Damage> {
        if *length + RECORD as u64 > size {
            return Ok(false);
        }
        input.read_exact(record)?;
        *length += RECORD as u64;
        Ok(true)
    };
    // The base and its sessions came into place whole: nothing of them can be torn.
    let at = length;
    if !next(&mut length, &mut record)? || !own(&record, BASE) {
        return Err(Damage::At(at));
    }
    let mut head = Head { count: u64::from_le_bytes(part(&record, 1)), chain: part(&record, 9) };
    if head.count > MAX_COUNT {
        return Err(Damage::At(at));
    }
    let era = head.chain;
    let named = [u64::from_le_bytes(part(&record, 41)), u64::from_le_bytes(part(&record, 49))];
    let (mut sessions, mut ready) = (Vec::new(), Vec::new());
    for (kind, count) in [SESSION, READY].into_iter().zip(named) {
        for _ in 0..count {
            let at = length;
            if !next(&mut length, &mut record)? || !own(&record, kind) {
                return Err(Damage::At(at));
            }
            match kind {
                SESSION => sessions.push(part(&record, 1)),
                _ => ready.push(BundleId(part(&record, 1))),
            }
        }
    }
    let mut chain_there = (count == Some(head.count)).then_some(head.chain);
    let mut bundles = Vec::new();
    loop {
        let at = length;
        if !next(&mut length, &mut record)? {
            break;
        }
        let after = head.after(&record[..=BODY]);
        if record[0] != SPENT || record[1 + BODY..] != after.chain[..CHECK] {
            if length < size {
                return Err(Damage::At(at));
            }
            length = at;
            break;
        }
        head = after;
        bundles.push(BundleId(part(&record, 1)));
        sessions.push(part(&record, 17));
        if count == Some(head.count) {
            chain_there = Some(head.chain);
        }
    }
    Ok(Contents { head, era, ready, length, bundles, sessions, chain_there })
}

/// Version 1: records of 49 bytes, a spend (bundle, session, number) or what was used of a session, each with
/// its own check. Gives the sessions, in order of use.
pub(super) fn read_v1(input: &mut impl Read, size: u64) -> Result<Vec<[u8; 16]>, Damage> {
    const RECORD: usize = 49;
    const SPENT: u8 = 1;
    const MARK: u8 = 2;
    let mut record = [0; RECORD];
    let mut length = HEADER_V1.len() as u64;
    let mut sessions = Vec::new();
    while length + RECORD as u64 <= size {
        input.read_exact(&mut record)?;
        if own(&record, SPENT) {
            sessions.push(part(&record, 17));
        } else if own(&record, MARK) {
            sessions.push(part(&record, 1));
        } else if length + (RECORD as u64) < size {
            return Err(Damage::At(length));
        }
        length += RECORD as u64;
    }
    Ok(sessions)
}
