//! A session as bytes that the application may store (`server/PROTOCOL.md`, section 3).
//!
//! ```text
//! blob = "SESS" || version (1) || n (1) || session id (16) || model id (32)
//!        || input_len (4) || values (4) || width (4)
//!        || server set id (32) || created (8) || K_1 … K_n (32 each) || checksum (32)
//! ```
//!
//! Numbers are little-endian. `created` is when the session was opened, in seconds since 1970, or 0 where
//! nobody knows. The checksum is SHA-256 over everything before it; it finds damage, not forgery. To an
//! application the blob is opaque. It is written once, when the session is opened.
//!
//! **It is a secret**: it holds the session keys, with which inputs and answers can be read from recorded
//! traffic. It belongs in the platform's key store, or encrypted under a key from there. Wipe the buffers
//! that it passed through; [`Session::restore`](crate::Session::restore) wipes the one it is given.
//!
//! Nothing else is asked of the application. The blob may be copied, restored from a backup, or used by
//! several processes at a time: every connection derives pads of its own ([`crate::incarnation`]). A lost or
//! damaged blob costs one sealing: open a new session.

use crate::session::Identity;
use crate::{
    Error, MAX_SERVERS, ModelId, ModelInfo, Result, ServerSetId, SessionId, SessionKey, check_servers,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Version of the blob's format. Independent of the wire's: a device may be updated between two runs.
pub const SESSION_BLOB_VERSION: u8 = 3;

/// Bytes of the longest blob: enough for [`Session::save`](crate::Session::save).
pub const MAX_SESSION_BLOB: usize = blob_len(MAX_SERVERS);

const MAGIC: &[u8; 4] = b"SESS";
const FIXED_LEN: usize = MAGIC.len() + 2 + 16 + 32 + 3 * 4 + 32 + 8;
const KEY_LEN: usize = 32;
const CHECKSUM_LEN: usize = 32;

const fn blob_len(servers: usize) -> usize {
    FIXED_LEN + servers * KEY_LEN + CHECKSUM_LEN
}

/// What a blob says.
pub(crate) struct Contents {
    pub(crate) identity: Identity,
    pub(crate) created: u64,
    pub(crate) keys: heapless::Vec<SessionKey, MAX_SERVERS>,
}

/// Writes a blob to the start of `out`.
///
/// # Errors
/// [`Error::BufferTooSmall`]; [`Error::Model`] or [`Error::Servers`] for what no session has.
pub(crate) fn write<'o>(
    identity: &Identity,
    created: u64,
    keys: &[SessionKey],
    out: &'o mut [u8],
) -> Result<&'o [u8]> {
    let count = check_servers(keys.len())?;
    let out = out.get_mut(..blob_len(count)).ok_or(Error::BufferTooSmall)?;
    let (body, checksum) = out.split_at_mut(blob_len(count) - CHECKSUM_LEN);
    let Identity { session, model, servers } = identity;
    let number = |value: usize, field| u32::try_from(value).map_err(|_| Error::Model(field));
    let parts: [&[u8]; 9] = [
        MAGIC,
        &[SESSION_BLOB_VERSION, count as u8],
        &session.0,
        &model.id.0,
        &number(model.input_len, "input_len")?.to_le_bytes(),
        &number(model.values, "values")?.to_le_bytes(),
        &model.width.to_le_bytes(),
        &servers.0,
        &created.to_le_bytes(),
    ];
    let keys = keys.iter().flat_map(SessionKey::expose);
    for (to, from) in body.iter_mut().zip(parts.into_iter().flatten().chain(keys)) {
        *to = *from;
    }
    checksum.copy_from_slice(&Sha256::digest(body));
    Ok(out)
}

/// Reads a blob.
///
/// # Errors
/// [`Error::SessionBlobVersion`], or [`Error::SessionBlob`] for everything else that [`write`] would not have
/// written.
pub(crate) fn read(blob: &[u8]) -> Result<Contents> {
    let mut rest = blob;
    if take(&mut rest)? != *MAGIC {
        return Err(Error::SessionBlob);
    }
    // Before the checksum: other versions may compute it in another way.
    let [version, count] = take(&mut rest)?;
    if version != SESSION_BLOB_VERSION {
        return Err(Error::SessionBlobVersion { got: version });
    }
    let count = check_servers(count.into()).map_err(|_| Error::SessionBlob)?;
    let (body, checksum) = blob.split_last_chunk::<CHECKSUM_LEN>().ok_or(Error::SessionBlob)?;
    if blob.len() != blob_len(count) || !bool::from(Sha256::digest(body).as_slice().ct_eq(checksum)) {
        return Err(Error::SessionBlob);
    }
    let session = SessionId(take(&mut rest)?);
    let id = ModelId(take(&mut rest)?);
    let mut number = || take(&mut rest).map(u32::from_le_bytes);
    let [input_len, values, width] = [number()?, number()?, number()?];
    let size = |value| usize::try_from(value).map_err(|_| Error::SessionBlob);
    let model = ModelInfo { id, input_len: size(input_len)?, values: size(values)?, width };
    model.validate().map_err(|_| Error::SessionBlob)?;
    let servers = ServerSetId(take(&mut rest)?);
    let created = u64::from_le_bytes(take(&mut rest)?);
    let mut keys = heapless::Vec::new();
    for _ in 0..count {
        let key = SessionKey::from_bytes(take(&mut rest)?);
        keys.push(key).map_err(|_| Error::SessionBlob)?;
    }
    Ok(Contents { identity: Identity { session, model, servers }, created, keys })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (head, tail) = rest.split_first_chunk().ok_or(Error::SessionBlob)?;
    *rest = tail;
    Ok(*head)
}
