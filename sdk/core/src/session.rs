//! The device's keys of one session (`server/PROTOCOL.md`, section 3).
//!
//! A session outlives connections, and restarts if it is stored: its keys are sealed once in weeks. On every
//! connection it [starts](Session::start) a new incarnation, whose [`Requester`] masks inputs and reads
//! answers.
//!
//! ```
//! # use seco_core::{EXPORTER_LEN, Error, MAX_SESSION_BLOB, Request, Session};
//! # fn store(_: &[u8]) {}
//! # fn example(
//! #     session: &Session, exporter: &[u8; EXPORTER_LEN], input: &mut [u8], rng: &mut impl rand_core::CryptoRng,
//! # ) -> Result<(), Error> {
//! let mut buffer = [0; MAX_SESSION_BLOB];
//! store(session.save(&mut buffer)?); // in the platform's key store, once
//! // On a connection, whose TLS session yields `exporter`:
//! let mut requester = session.start(exporter, rng);
//! let mut tags = [0; 128];
//! let resume = requester.resume_message(&mut tags)?; // or `session.open_message`, the first time
//! // ... sent and answered with a handle; then
//! let pending = requester.request(input)?;
//! # let _ = (resume, pending);
//! # Ok(())
//! # }
//! ```

use crate::incarnation::{EXPORTER_LEN, Incarnation};
use crate::message::{ADMIT_OVERHEAD, FRAME_OVERHEAD};
use crate::pack::packed_len;
use crate::seal::{self, Binding, MAX_SEALED, ServerSealingKey, ServerSetId};
use crate::{Error, MAX_SERVERS, ModelId, Request, Requester, Result, SessionId, SessionKey, blob};
use core::fmt;
use rand_core::CryptoRng;
use zeroize::Zeroize;

/// What the device knows of a model: its name and the shapes of input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name of the model.
    pub id: ModelId,
    /// Bytes of an input, one for each value or two ([`crate::input`]): `1..=`[`ModelInfo::MAX_INPUT`].
    pub input_len: usize,
    /// Integers of an answer, all outputs together: `1..=`[`ModelInfo::MAX_VALUES`].
    pub values: usize,
    /// `k`: bits of each of them, `2..=32`.
    pub width: u32,
}

impl ModelInfo {
    /// Longest input, in bytes.
    pub const MAX_INPUT: usize = 1 << 26;

    /// Most integers of an answer.
    pub const MAX_VALUES: usize = 1 << 20;

    /// Checks every field's range.
    ///
    /// # Errors
    /// [`Error::Model`] with the name of the field.
    pub fn validate(&self) -> Result<()> {
        let check = |good, field| if good { Ok(()) } else { Err(Error::Model(field)) };
        check((1..=Self::MAX_INPUT).contains(&self.input_len), "input_len")?;
        check((1..=Self::MAX_VALUES).contains(&self.values), "values")?;
        check((2..=32).contains(&self.width), "width")
    }

    /// Bytes of the payload of [`Response::Logits`](crate::Response::Logits).
    #[must_use]
    pub const fn logits_len(&self) -> usize {
        packed_len(self.values, self.width)
    }

    /// Bytes of the longest message that a gateway takes for this model.
    #[must_use]
    pub const fn request_limit(&self) -> usize {
        // Only sessions are opened with a token.
        let opening = MAX_SEALED + ADMIT_OVERHEAD;
        FRAME_OVERHEAD + if self.input_len > opening { self.input_len } else { opening }
    }

    /// Bytes of the longest message that a device takes for this model.
    #[must_use]
    pub const fn response_limit(&self) -> usize {
        let (logits, probe) = (self.logits_len(), u16::MAX as usize);
        FRAME_OVERHEAD + if logits > probe { logits } else { probe }
    }
}

/// What a session is for; fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) session: SessionId,
    pub(crate) model: ModelInfo,
    pub(crate) servers: ServerSetId,
}

/// One session: a key for every server.
pub struct Session {
    identity: Identity,
    created: u64,
    keys: heapless::Vec<SessionKey, MAX_SERVERS>,
}

impl Session {
    /// Draws the session's id and one key for each of `servers`, the gateway's first. `created` is the time in
    /// seconds since 1970, or 0 where there is no clock; it is kept and not looked at here.
    ///
    /// # Errors
    /// [`Error::Model`] or [`Error::Servers`] if the deployment is not usable.
    pub fn new(
        model: ModelInfo,
        servers: &[ServerSealingKey],
        created: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Self> {
        model.validate()?;
        let mut session = SessionId([0; 16]);
        rng.fill_bytes(&mut session.0);
        let identity = Identity { session, model, servers: ServerSetId::new(servers)? };
        let mut keys = heapless::Vec::new();
        for _ in servers {
            keys.push(SessionKey::generate(rng)).map_err(|_| Error::Servers { got: servers.len() })?;
        }
        Ok(Self { identity, created, keys })
    }

    /// Takes up the session of a stored blob, whose copy in memory is wiped, whatever the result. Whether it is
    /// for the deployment at hand say [`Session::model`] and [`Session::server_set`].
    ///
    /// # Errors
    /// [`Error::SessionBlob`] or [`Error::SessionBlobVersion`]: open a new session.
    pub fn restore(blob: &mut [u8]) -> Result<Self> {
        let contents = blob::read(blob);
        blob.zeroize();
        let blob::Contents { identity, created, keys } = contents?;
        Ok(Self { identity, created, keys })
    }

    /// Writes the session as a blob of at most [`MAX_SESSION_BLOB`](crate::MAX_SESSION_BLOB) bytes into `out`
    /// and returns it, to be stored. It holds the session keys: wipe `out` afterwards, and see [`blob`].
    ///
    /// # Errors
    /// [`Error::BufferTooSmall`].
    pub fn save<'o>(&self, out: &'o mut [u8]) -> Result<&'o [u8]> {
        blob::write(&self.identity, self.created, &self.keys, out)
    }

    /// The session's name.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.identity.session
    }

    /// The model it was made for.
    #[must_use]
    pub const fn model(&self) -> &ModelInfo {
        &self.identity.model
    }

    /// The servers it was made for: [`ServerSetId::new`] of their sealing keys.
    #[must_use]
    pub const fn server_set(&self) -> ServerSetId {
        self.identity.servers
    }

    /// When it was made, in seconds since 1970; 0 where nobody knew.
    #[must_use]
    pub const fn created(&self) -> u64 {
        self.created
    }

    /// Starts an incarnation: draws its nonce and derives the keys of one connection, whose TLS session yields
    /// `exporter` under [`EXPORTER_LABEL`](crate::EXPORTER_LABEL). To be called once per connection; the nonce
    /// is new at every call, so another call costs nothing but its work.
    #[must_use]
    pub fn start(&self, exporter: &[u8; EXPORTER_LEN], rng: &mut impl CryptoRng) -> Requester {
        let mut incarnation = Incarnation { nonce: [0; 16], exporter: *exporter };
        rng.fill_bytes(&mut incarnation.nonce);
        let keys = self.keys.iter().map(|key| key.for_connection(&incarnation)).collect();
        Requester::new(self.identity, incarnation, keys)
    }

    /// The message that opens the session at the servers on the connection of `requester`, its keys sealed
    /// into `buffer`, which needs `servers.len() · `[`SEALED_LEN`](crate::SEALED_LEN) bytes. `servers` are
    /// those given to [`Session::new`].
    ///
    /// # Errors
    /// [`Error::OtherSession`], [`Error::OtherServers`] or [`Error::BufferTooSmall`].
    pub fn open_message<'b>(
        &self,
        requester: &Requester,
        servers: &[ServerSealingKey],
        rng: &mut impl CryptoRng,
        buffer: &'b mut [u8],
    ) -> Result<Request<'b>> {
        if requester.session() != self.id() {
            return Err(Error::OtherSession);
        }
        if ServerSetId::new(servers)? != self.identity.servers {
            return Err(Error::OtherServers);
        }
        let Identity { session, model, servers: set } = self.identity;
        let incarnation = requester.incarnation();
        let binding = Binding { session, model: model.id, servers: set, incarnation: incarnation.id() };
        let sealed = seal::seal_session_keys(&self.keys, servers, &binding, rng, buffer)?;
        Ok(Request::Open { session, model: model.id, nonce: incarnation.nonce, sealed })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?}, {} servers)", self.id(), self.keys.len())
    }
}
