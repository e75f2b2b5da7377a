//! The client object, and one request of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use seco_sdk::{Client, Deployment};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::runtime::{self, Task};
use crate::store::{Adapter, SessionStore};
use crate::{
    ClientConfig, Cost, ModelInfo, Prediction, ProgressListener, RequestProgress, SecoError, Transport,
};

/// A connection to a gateway with an open session. Any number of requests may run at a time; one that is
/// cancelled leaves it usable.
#[derive(uniffi::Object)]
pub struct SecoClient {
    client: Arc<Client>,
    runtime: Handle,
}

#[uniffi::export]
impl SecoClient {
    /// Connects, and opens a session or goes on with the one in `store`.
    ///
    /// # Errors
    /// Any but `WrongInputSize`.
    #[uniffi::constructor(default(store = None))]
    pub async fn connect(
        config: ClientConfig,
        store: Option<Arc<dyn SessionStore>>,
    ) -> Result<Arc<Self>, SecoError> {
        let runtime = runtime::handle()?;
        let deployment = Deployment::from_toml(&config.deployment)?;
        let transport = match config.transport {
            None => seco_sdk::Transport::Auto,
            Some(Transport::Quic) => seco_sdk::Transport::Quic,
            Some(Transport::Tcp) => seco_sdk::Transport::Tcp,
        };
        let limit = Duration::from_millis(config.connect_timeout_ms.into());
        let mut builder = Client::builder(deployment)
            .connect_timeout(limit)
            .request_timeout(Duration::from_millis(config.request_timeout_ms.into()))
            .transport(transport)
            .fallback_delay(limit.min(Duration::from_secs(1)))
            .keep_sent(config.keep_sent);
        if let Some(store) = store {
            builder = builder.session_store(Arc::new(Adapter(store)));
        }
        let connecting = async move { Ok(builder.connect().await?) };
        let client = Arc::new(Task::spawn(&runtime, connecting).result().await?);
        Ok(Arc::new(Self { client, runtime }))
    }

    /// Runs the model on `input`, one byte per value in the order of the model's input. Cancelling the call
    /// cancels the request.
    ///
    /// # Errors
    /// `WrongInputSize`, or any but `InvalidConfiguration`; in every case another request may be tried.
    #[uniffi::method(default(listener = None))]
    pub async fn infer(
        &self,
        input: Vec<u8>,
        listener: Option<Arc<dyn ProgressListener>>,
    ) -> Result<Prediction, SecoError> {
        self.request(input, listener).result().await
    }

    /// Starts a request, to be awaited and cancelled separately: for languages where giving up a call does
    /// not end it.
    #[uniffi::method(default(listener = None))]
    pub fn start(&self, input: Vec<u8>, listener: Option<Arc<dyn ProgressListener>>) -> Arc<Inference> {
        let task = self.request(input, listener);
        Arc::new(Inference { abort: task.abort_handle(), task: Mutex::new(Some(task)) })
    }

    /// Runs the model on every one of `inputs`, up to eight at a time; results in their order.
    ///
    /// # Errors
    /// The error of the first input that failed. The others were run all the same.
    pub async fn infer_many(&self, inputs: Vec<Vec<u8>>) -> Result<Vec<Prediction>, SecoError> {
        let client = self.client.clone();
        let all = async move {
            let results = client.infer_many(&inputs).await;
            results.into_iter().map(|result| Ok(result?.into())).collect()
        };
        Task::spawn(&self.runtime, all).result().await
    }

    /// Sends `up` random bytes and receives `down`: what a plain request of that size costs.
    ///
    /// # Errors
    /// `InvalidConfiguration` beyond the longest request or 65,535 bytes down; otherwise as `infer`.
    pub async fn probe(&self, up: u32, down: u32) -> Result<(), SecoError> {
        let client = self.client.clone();
        let probe = async move {
            let (up, down) = (usize::try_from(up), usize::try_from(down));
            Ok(client.probe(up.unwrap_or(usize::MAX), down.unwrap_or(usize::MAX)).await?)
        };
        Task::spawn(&self.runtime, probe).result().await
    }

    /// What the model takes and gives.
    pub fn model(&self) -> ModelInfo {
        self.client.model().into()
    }

    /// What carries the requests at present.
    pub fn transport(&self) -> Transport {
        match self.client.transport() {
            seco_sdk::TransportKind::Tcp => Transport::Tcp,
            _ => Transport::Quic,
        }
    }

    /// Cost of the last request that ended, private or plain.
    pub fn last_cost(&self) -> Cost {
        self.client.last_cost().into()
    }

    /// Cost of everything so far: connecting, the session, and all requests.
    pub fn total_cost(&self) -> Cost {
        self.client.total_cost().into()
    }

    /// The masked input that the last request sent: what others get to see. Needs `keep_sent`.
    pub fn last_sent(&self) -> Option<Vec<u8>> {
        self.client.last_sent()
    }

    /// To be called when the device changed its network or woke up: the connection moves there.
    ///
    /// # Errors
    /// `Network` if there is no new socket; the old one stays in use.
    pub fn network_changed(&self) -> Result<(), SecoError> {
        // Sockets register with the runtime of the thread they are made on.
        let _inside = self.runtime.enter();
        Ok(self.client.network_changed()?)
    }

    /// Tells the gateway that the client is done, and fails all requests with `Closed`. Releasing the object
    /// without it closes the connection too.
    pub async fn shutdown(&self) {
        let client = self.client.clone();
        let closing = async move {
            client.close().await;
            Ok(())
        };
        // Not cancelled itself, it cannot fail.
        let _ = Task::spawn(&self.runtime, closing).result().await;
    }
}

impl SecoClient {
    fn request(&self, input: Vec<u8>, listener: Option<Arc<dyn ProgressListener>>) -> Task<Prediction> {
        let client = self.client.clone();
        let tell = move |progress| {
            if let (Some(listener), Some(progress)) = (&listener, RequestProgress::new(progress)) {
                // What the application throws must not end its request.
                let _ = catch_unwind(AssertUnwindSafe(|| listener.on_progress(progress)));
            }
        };
        Task::spawn(&self.runtime, async move { Ok(client.infer_with(&input, tell).await?.into()) })
    }
}

/// A request under way. Releasing it cancels the request.
#[derive(uniffi::Object)]
pub struct Inference {
    abort: AbortHandle,
    task: Mutex<Option<Task<Prediction>>>,
}

#[uniffi::export]
impl Inference {
    /// Waits for the prediction. To be called once.
    ///
    /// # Errors
    /// As [`SecoClient::infer`]; `Closed` if the request was cancelled or its result was taken before.
    pub async fn result(&self) -> Result<Prediction, SecoError> {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        match task {
            Some(task) => task.result().await,
            None => Err(SecoError::Closed { reason: "the result was taken before".to_owned() }),
        }
    }

    /// Cancels the request: [`Inference::result`] ends with `Closed`. Has no effect on one that has ended.
    pub fn cancel(&self) {
        self.abort.abort();
    }
}
