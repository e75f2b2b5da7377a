//! The client object.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use seco_sdk::{Client, ClientBuilder, Deployment, Quantised};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::runtime::{self, Task};
use crate::store::SessionStore;
use crate::{
    Answer, Cancellation, ClientConfig, ClientLog, Cost, InputForm, ModelInfo, Prediction, ProgressListener,
    RequestProgress, SecoError, Transport,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Settings as the SDK has them.
fn builder(config: &ClientConfig, deployment: Deployment) -> ClientBuilder {
    let transport = match config.transport {
        None => seco_sdk::Transport::Auto,
        Some(Transport::Quic) => seco_sdk::Transport::Quic,
        Some(Transport::Tcp) => seco_sdk::Transport::Tcp,
    };
    let limit = Duration::from_millis(config.connect_timeout_ms.into());
    Client::builder(deployment)
        .connect_timeout(limit)
        .request_timeout(Duration::from_millis(config.request_timeout_ms.into()))
        .transport(transport)
        .fallback_delay(limit.min(Duration::from_secs(1)))
        .session_max_age(DAY * config.session_max_age_days)
        .keep_sent(config.keep_sent)
}

/// Asks the gateway for the text of a deployment file that takes that of `config`'s place: signed by the owner whom the
/// present one names, and newer. Nothing where there is none. It was checked; keep it beside the old one until a client
/// has connected with it. Also helps where a session is refused because servers or model are others now.
///
/// # Errors
/// `InvalidConfiguration` if the present file names no owner, or what came is not to be used; `Network`, `Timeout`,
/// `UntrustedServer`, `IncompatibleServer`, `Closed`.
#[uniffi::export(default(cancellation = None))]
pub async fn fetch_deployment_update(
    config: ClientConfig,
    cancellation: Option<Arc<Cancellation>>,
) -> Result<Option<String>, SecoError> {
    let runtime = runtime::handle()?;
    // Whichever model is asked: the next file may be what names it.
    let builder = builder(&config, Deployment::from_toml(&config.deployment)?);
    let fetching = async move { Ok(builder.fetch_update().await?) };
    Task::spawn(&runtime, cancellation.as_deref(), fetching).result().await
}

/// A connection to a gateway with an open session. Any number of requests may run at a time; one that is
/// cancelled leaves it usable.
///
/// A call that is given up is cancelled, in Kotlin with its coroutine; `cancellation` is for languages where
/// nobody tells the library that a call is given up, as in Swift, whose package passes it.
#[derive(uniffi::Object)]
pub struct SecoClient {
    client: Arc<Client>,
    runtime: Handle,
    #[cfg(feature = "array")]
    model: seco_sdk::Model,
}

#[cfg(feature = "array")]
impl SecoClient {
    pub(crate) const fn input_model(&self) -> &seco_sdk::Model {
        &self.model
    }

    pub(crate) fn client(&self) -> Arc<Client> {
        self.client.clone()
    }

    pub(crate) const fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

#[uniffi::export]
impl SecoClient {
    /// Connects, and opens a session or goes on with the one in `store`. `token` is the text of one, for a gateway that
    /// asks for it; not among the settings, which a log may show. Servers that are away, busy or restarting are waited for
    /// as long as a request may take. `log` is told what the client does from then on.
    ///
    /// # Errors
    /// Any but `WrongInputSize`.
    #[uniffi::constructor(default(store = None, cancellation = None, token = None, log = None))]
    pub async fn connect(
        config: ClientConfig,
        store: Option<Arc<dyn SessionStore>>,
        cancellation: Option<Arc<Cancellation>>,
        token: Option<String>,
        log: Option<Arc<dyn ClientLog>>,
    ) -> Result<Arc<Self>, SecoError> {
        let token = token.map(Zeroizing::new);
        let runtime = runtime::handle()?;
        let deployment = Deployment::from_toml(&config.deployment)?.select(config.model.as_deref())?;
        #[cfg(feature = "array")]
        let model = deployment.model.clone();
        let mut builder = builder(&config, deployment);
        if let Some(token) = token {
            builder = builder.token(token.parse().map_err(|_| SecoError::no_token())?);
        }
        if let Some(store) = store {
            builder = builder.session_store(Arc::new(crate::store::Adapter(store)));
        }
        if let Some(log) = log {
            builder = builder.log(Arc::new(crate::log::Adapter(log)));
        }
        let connecting = async move { Ok(builder.connect().await?) };
        let client = Arc::new(Task::spawn(&runtime, cancellation.as_deref(), connecting).result().await?);
        Ok(Arc::new(Self {
            client,
            runtime,
            #[cfg(feature = "array")]
            model,
        }))
    }

    /// Runs the model on `input`, one byte per value in the order of the model's input, or two, the lower one first, where
    /// the model's values have more than 8 bits. `form` is for the packages' `inferReals`, which gives numbers another form.
    ///
    /// # Errors
    /// `WrongInputSize`, `InvalidConfiguration` for a value that cannot be used, or any other; in every case another
    /// request may be tried.
    #[uniffi::method(default(listener = None, cancellation = None, form = None))]
    pub async fn infer(
        &self,
        input: Vec<u8>,
        listener: Option<Arc<dyn ProgressListener>>,
        cancellation: Option<Arc<Cancellation>>,
        form: Option<InputForm>,
    ) -> Result<Prediction, SecoError> {
        let client = self.client.clone();
        let input = Zeroizing::new(input);
        let request = async move {
            let input = match form {
                // Wiped before the request is made, which may take long.
                Some(InputForm::Floats) => {
                    let floats = floats(&input)?;
                    drop(input);
                    client.quantised(&floats)?
                }
                None => Quantised { bytes: input, cut: false },
            };
            Ok(client.infer_quantised(&input, tells(listener)).await?.into())
        };
        Task::spawn(&self.runtime, cancellation.as_deref(), request).result().await
    }

    /// Runs the model on every one of `inputs`, up to eight at a time; results in their order.
    ///
    /// # Errors
    /// The error of the first input that failed. The others were run all the same, unless cancelled.
    #[uniffi::method(default(cancellation = None))]
    pub async fn infer_many(
        &self,
        inputs: Vec<Vec<u8>>,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<Vec<Prediction>, SecoError> {
        let client = self.client.clone();
        let inputs = Zeroizing::new(inputs);
        let all = async move {
            let results = client.infer_many(&inputs).await;
            drop(inputs);
            results.into_iter().map(|result| Ok(result?.into())).collect()
        };
        Task::spawn(&self.runtime, cancellation.as_deref(), all).result().await
    }

    /// Sends `up` random bytes and receives `down`: what a plain request of that size costs.
    ///
    /// # Errors
    /// `InvalidConfiguration` beyond the longest request or 65,535 bytes down; otherwise as `infer`.
    #[uniffi::method(default(cancellation = None))]
    pub async fn probe(
        &self,
        up: u32,
        down: u32,
        cancellation: Option<Arc<Cancellation>>,
    ) -> Result<(), SecoError> {
        let client = self.client.clone();
        let probe = async move {
            let (up, down) = (usize::try_from(up), usize::try_from(down));
            Ok(client.probe(up.unwrap_or(usize::MAX), down.unwrap_or(usize::MAX)).await?)
        };
        Task::spawn(&self.runtime, cancellation.as_deref(), probe).result().await
    }

    /// What a prediction of this client says, output by output: numbers, probabilities, class. Computed here and now.
    pub fn answers(&self, prediction: Prediction) -> Vec<Answer> {
        let Prediction { label, logits, outside_calibration } = prediction;
        let (label, outputs) = (label as usize, self.client.outputs());
        let prediction = seco_sdk::Prediction { logits, label, outside_calibration, outputs };
        prediction.answers().map(Into::into).collect()
    }

    /// What the model takes and gives.
    pub fn model(&self) -> ModelInfo {
        ModelInfo::new(self.client.model(), self.client.input_bits())
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
        let _ = Task::spawn(&self.runtime, None, closing).result().await;
    }
}

/// Tells `listener`, if there is one, how a request is getting on.
pub(crate) fn tells(listener: Option<Arc<dyn ProgressListener>>) -> impl FnMut(seco_sdk::Progress) + Send {
    move |progress| {
        if let (Some(listener), Some(progress)) = (&listener, RequestProgress::new(progress)) {
            // What the application throws must not end its request.
            let _ = catch_unwind(AssertUnwindSafe(|| listener.on_progress(progress)));
        }
    }
}

/// The numbers of [`InputForm::Floats`].
fn floats(bytes: &[u8]) -> Result<Zeroizing<Vec<f32>>, SecoError> {
    match bytes.as_chunks() {
        (floats, []) => Ok(Zeroizing::new(floats.iter().map(|float| f32::from_le_bytes(*float)).collect())),
        _ => {
            let reason = format!("{} bytes are no 32-bit floats: give four for each", bytes.len());
            Err(SecoError::InvalidConfiguration { reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_four_bytes_each_and_nothing_is_left_over() {
        assert_eq!(*floats(&[0, 0, 128, 63, 0, 0, 0, 192]).unwrap(), [1.0, -2.0]);
        assert!(floats(&[]).unwrap().is_empty());
        for odd in [1, 2, 3, 5, 7] {
            let error = floats(&vec![0; odd]).unwrap_err();
            assert_eq!(error.code(), 1, "{error}");
        }
    }
}
