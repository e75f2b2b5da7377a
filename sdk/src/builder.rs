//! Settings of a client, and their checks.

use crate::cost::HeapMeter;
use crate::deployment::no_owner;
use crate::link::Linker;
use crate::log::{Log, Logger};
use crate::store::SessionStore;
use crate::{Client, Deployment, Error, Result};
use seco_core::Token;
use std::sync::Arc;
use std::time::Duration;

/// Longest time limit: one hour.
const LONGEST: Duration = Duration::from_secs(3600);

/// How a client reaches its gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// QUIC, and TCP beside it where QUIC is not there within
    /// [`fallback_delay`](ClientBuilder::fallback_delay): some networks block UDP. The first one to finish
    /// its handshake is used.
    #[default]
    Auto,
    /// QUIC (UDP) only.
    Quic,
    /// TLS over TCP only.
    Tcp,
}

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportKind {
    /// QUIC.
    Quic,
    /// TLS over TCP.
    Tcp,
}

/// Makes a [`Client`]; from [`Client::builder`]. Settings are checked by [`ClientBuilder::connect`].
#[must_use = "a builder does nothing until `connect`"]
pub struct ClientBuilder {
    pub(crate) deployment: Deployment,
    pub(crate) settings: Settings,
}

/// What a builder was told.
pub(crate) struct Settings {
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) transport: Transport,
    pub(crate) fallback_delay: Duration,
    pub(crate) store: Option<Arc<dyn SessionStore>>,
    pub(crate) session_max_age: Duration,
    pub(crate) token: Option<Token>,
    pub(crate) keep_sent: bool,
    pub(crate) heap_meter: Option<Arc<dyn HeapMeter>>,
    pub(crate) log: Logger,
}

impl ClientBuilder {
    pub(crate) fn new(deployment: Deployment) -> Self {
        let settings = Settings {
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(60),
            transport: Transport::Auto,
            fallback_delay: Duration::from_secs(1),
            store: None,
            session_max_age: Duration::from_secs(30 * 24 * 3600),
            token: None,
            keep_sent: false,
            heap_meter: None,
            log: Logger::default(),
        };
        Self { deployment, settings }
    }

    /// Upper limit for reaching the gateway, and again for opening a session there. Default: 10 seconds; at
    /// most one hour.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.settings.connect_timeout = limit;
        self
    }

    /// Upper limit for one inference or probe in all: queueing, reconnecting and all further tries included. An outage
    /// that is shorter is not an error. Default: 60 seconds; at most one hour.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.settings.request_timeout = limit;
        self
    }

    /// How to reach the gateway. Default: [`Transport::Auto`].
    pub fn transport(mut self, transport: Transport) -> Self {
        self.settings.transport = transport;
        self
    }

    /// With [`Transport::Auto`], how long QUIC has for itself before TCP is tried too. Default: 1 second; may
    /// be zero, and not longer than [`connect_timeout`](Self::connect_timeout).
    pub fn fallback_delay(mut self, delay: Duration) -> Self {
        self.settings.fallback_delay = delay;
        self
    }

    /// Goes on with the session in `store`, which costs no sealing, or with a new one that is kept there from
    /// now on: if nothing is stored, if it is damaged, too old or for another deployment, or if the gateway
    /// does not know it any more. Default: the session lives as long as the client.
    ///
    /// Any number of clients and processes may use the same session; see [`SessionStore`].
    pub fn session_store(mut self, store: Arc<dyn SessionStore>) -> Self {
        self.settings.store = Some(store);
        self
    }

    /// Age at which a session is given up and a new one opened, by the system's clock: while connecting, or
    /// before the next request. Whoever gets hold of a session's keys can read what was asked under them, and
    /// nothing before or after. Default: 30 days; not zero. A session that says that it was opened more than a
    /// day ahead of the clock is given up as well.
    pub fn session_max_age(mut self, age: Duration) -> Self {
        self.settings.session_max_age = age;
        self
    }

    /// Shows the gateway this token, with every session that is opened or taken up. Whoever runs the gateway gives
    /// tokens away, if it asks for them. Default: none.
    ///
    /// Refused, it is told as [`Error::Refused`] with [`Refusal::TokenMissing`](crate::Refusal::TokenMissing),
    /// [`TokenInvalid`](crate::Refusal::TokenInvalid), [`TokenExpired`](crate::Refusal::TokenExpired) or
    /// [`TokenExhausted`](crate::Refusal::TokenExhausted).
    pub fn token(mut self, token: Token) -> Self {
        self.settings.token = Some(token);
        self
    }

    /// Keeps the masked input of the last request for [`Client::last_sent`]. Costs its size in memory.
    /// Default: no.
    pub fn keep_sent(mut self, keep: bool) -> Self {
        self.settings.keep_sent = keep;
        self
    }

    /// Asks the application's allocator for [`Cost::heap_peak`](crate::Cost::heap_peak). Default: not
    /// measured.
    pub fn heap_meter(mut self, meter: Arc<dyn HeapMeter>) -> Self {
        self.settings.heap_meter = Some(meter);
        self
    }

    /// Tells `log` what the client does: connections, sessions, requests and what is in their way
    /// ([`Event`](crate::Event)), and nothing that is secret. Default: nobody is told.
    pub fn log(mut self, log: Arc<dyn Log>) -> Self {
        self.settings.log = Logger(Some(log));
        self
    }

    /// Checks the settings, connects, and opens or resumes a session. Runs inside a tokio runtime with its
    /// I/O and time drivers enabled; requests may then be polled by any executor.
    ///
    /// A gateway that is silent or, over TCP, refuses connections is asked again until
    /// [`connect_timeout`](Self::connect_timeout). One that is busy, that ends, or that misses another server is asked
    /// again as long as a request may take ([`request_timeout`](Self::request_timeout)). All else is told at once. Where
    /// the servers may just be starting, try again while [`Error::is_temporary`].
    ///
    /// # Errors
    /// [`Error::Setting`] with the setting; [`Error::Deployment`], [`Error::NoRuntime`],
    /// [`Error::NoRandomness`], [`Error::Setup`]; [`Error::Connect`], [`Error::PinMismatch`];
    /// [`Error::Busy`], [`Error::Refused`], [`Error::Timeout`], [`Error::Closed`], [`Error::Protocol`],
    /// [`Error::Session`] or [`Error::Storage`] while a session is opened.
    pub async fn connect(self) -> Result<Client> {
        self.settings.validate()?;
        Client::start(self).await
    }
}

impl ClientBuilder {
    /// Asks the gateway for a deployment file that takes the present one's place: signed by the owner whom the present
    /// one names, and with a larger number. Needs no session, so it helps where one is refused because servers or model
    /// are others now. The text is checked ([`Deployment::successor`]) and is the application's to keep: best beside the
    /// old one, until a client has connected with it. `None` where there is no newer one.
    ///
    /// # Errors
    /// [`Error::Setting`] if the present file names no owner; [`Error::Deployment`] if the file that came is not to be
    /// used; otherwise as [`ClientBuilder::connect`].
    pub async fn fetch_update(self) -> Result<Option<String>> {
        self.settings.validate()?;
        let update = self.deployment.update.ok_or_else(no_owner)?;
        let Self { deployment, settings } = self;
        let text = Linker::new(&deployment, settings)?.fetch_update(&update).await?;
        match text {
            Some(text) => deployment.successor(&text).map(|_| Some(text)),
            None => Ok(None),
        }
    }
}

impl Settings {
    fn validate(&self) -> Result<()> {
        let problem = |setting, problem| Err(Error::Setting { setting, problem });
        for (setting, limit) in
            [("connect_timeout", self.connect_timeout), ("request_timeout", self.request_timeout)]
        {
            if limit.is_zero() {
                return problem(setting, "is zero, so that nothing can be done in time");
            }
            if limit > LONGEST {
                return problem(setting, "is longer than an hour");
            }
        }
        if self.session_max_age.is_zero() {
            return problem("session_max_age", "is zero, so that no session could be used");
        }
        if self.transport == Transport::Auto && self.fallback_delay > self.connect_timeout {
            return problem("fallback_delay", "is longer than connect_timeout, so that TCP is never tried");
        }
        Ok(())
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("gateway", &self.deployment.gateway.address)
            .field("connect_timeout", &self.settings.connect_timeout)
            .field("request_timeout", &self.settings.request_timeout)
            .field("transport", &self.settings.transport)
            .field("fallback_delay", &self.settings.fallback_delay)
            .field("session_store", &self.settings.store.is_some())
            .field("session_max_age", &self.settings.session_max_age)
            .finish_non_exhaustive()
    }
}
