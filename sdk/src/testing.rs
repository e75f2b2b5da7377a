//! A client for an application's tests: it answers by script, without servers and without a network. Behind the feature
//! `testing`.
//!
//! Inputs, sizes and errors about them go through the crate's own code, as with a real client. The same cases of
//! `bindings/cases.json` are tried on both.

use crate::infer::BoxFuture;
use crate::shape::InputForm;
use crate::{
    Cost, Error, Infer, Last, Loss, Model, ModelId, ModelInfo, Output, Prediction, Progress, Quantised,
    Result, TransportKind, lock,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// What becomes of one inference.
#[derive(Debug)]
#[must_use = "a reply is given to `FakeClient::new`"]
pub struct Reply {
    answer: Said,
    delay: Duration,
    progress: Vec<Progress>,
    cost: Option<Cost>,
    outside_calibration: bool,
}

#[derive(Debug)]
enum Said {
    Label(usize),
    Logits(Vec<i32>),
    Error(Error),
}

impl Reply {
    fn new(answer: Said) -> Self {
        let (delay, progress) = (Duration::ZERO, vec![Progress::Sent]);
        Self { answer, delay, progress, cost: None, outside_calibration: false }
    }

    /// An answer whose [`Prediction::label`] is this one.
    pub fn label(label: usize) -> Self {
        Self::new(Said::Label(label))
    }

    /// An answer of these integers, for all outputs together.
    pub fn logits(logits: Vec<i32>) -> Self {
        Self::new(Said::Logits(logits))
    }

    /// No answer.
    pub fn error(error: Error) -> Self {
        Self::new(Said::Error(error))
    }

    /// It comes so late, after all progress was told. This is tokio's time: under `tokio::time::pause` a test waits for
    /// nothing.
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// What is told of the request, one after the other; otherwise [`Progress::Sent`].
    pub fn progress(mut self, progress: impl IntoIterator<Item = Progress>) -> Self {
        self.progress = progress.into_iter().collect();
        self
    }

    /// What it costs; otherwise the bytes of input and answer, and the delay.
    pub const fn cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
        self
    }

    /// The answer may be wrong for what the input is ([`Prediction::outside_calibration`]), whatever the input.
    pub const fn outside_calibration(mut self) -> Self {
        self.outside_calibration = true;
        self
    }
}

/// An [`Infer`] that answers by script. As a real client, it is to be used within a tokio runtime (with its timer).
///
/// What differs from a real client: nothing is measured, so the cost is the script's; a request is made once, so an
/// error is told although a real client might have tried again; and what was sent is bytes that have to do with no
/// input.
pub struct FakeClient {
    info: ModelInfo,
    input: InputForm,
    outputs: Arc<[Output]>,
    keep_sent: bool,
    state: Mutex<State>,
    closed: watch::Sender<bool>,
}

struct State {
    replies: VecDeque<Reply>,
    last: Cost,
    total: Cost,
    sent: Option<Vec<u8>>,
}

impl FakeClient {
    /// A client of a model that takes 1 x 28 x 28 bytes and gives the scores of ten classes. Every inference takes one
    /// of `replies`, in their order; when they are used up, the answer is label 0. An input that the model does not
    /// take uses up none.
    #[must_use]
    pub fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let (name, shape) = ("output".to_owned(), vec![10]);
        let model = Model {
            name: None,
            id: ModelId([0; 32]),
            input_shape: vec![1, 28, 28],
            input_bits: 8,
            calibrated: None,
            output_width: 32,
            fraction: None,
            quantise: None,
            outputs: vec![Output { name, shape, scale: 1.0, last: Last::None, classes: Vec::new() }],
        };
        let info = ModelInfo { id: model.id, input_len: 784, values: 10, width: 32 };
        Self::build(&model, info, replies)
    }

    /// The same of the application's own model: that of its [`Deployment`](crate::Deployment), or one that the test
    /// makes.
    ///
    /// # Errors
    /// [`Error::Deployment`] if a size of the model is out of range.
    pub fn of(model: &Model, replies: impl IntoIterator<Item = Reply>) -> Result<Self> {
        Ok(Self::build(model, model.info("model")?, replies))
    }

    fn build(model: &Model, info: ModelInfo, replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = replies.into_iter().collect();
        let state = State { replies, last: Cost::default(), total: Cost::default(), sent: None };
        Self {
            info,
            input: model.input_form(),
            outputs: model.outputs.as_slice().into(),
            keep_sent: false,
            state: Mutex::new(state),
            closed: watch::Sender::new(false),
        }
    }

    /// As [`ClientBuilder::keep_sent`](crate::ClientBuilder::keep_sent).
    #[must_use]
    pub const fn keep_sent(mut self, keep: bool) -> Self {
        self.keep_sent = keep;
        self
    }

    /// How many replies are left, so that a test can say that all were used.
    #[must_use]
    pub fn replies_left(&self) -> usize {
        lock(&self.state).replies.len()
    }

    fn check_open(&self) -> Result<()> {
        if *self.closed.borrow() { Err(Error::Closed(Loss::Local)) } else { Ok(()) }
    }

    fn spend(&self, cost: Cost) {
        let mut state = lock(&self.state);
        (state.last, state.total) = (cost, state.total + cost);
    }

    /// # Panics
    /// If the script has an answer that the model does not give: a mistake of the test.
    fn prediction(&self, answer: Said, outside_calibration: bool) -> Result<Prediction> {
        let (logits, meant) = match answer {
            Said::Error(error) => return Err(error),
            Said::Logits(logits) => (logits, None),
            Said::Label(label) => (self.logits_of(label), Some(label)),
        };
        let (got, expected) = (logits.len(), self.info.values);
        assert_eq!(got, expected, "the script has {got} integers, the model gives {expected}");
        let prediction = Prediction::new(logits, outside_calibration, self.outputs.clone());
        if let Some(label) = meant {
            assert_eq!(prediction.label, label, "the model has no label {label}");
        }
        Ok(prediction)
    }

    /// Integers of which `label` is the first output's.
    fn logits_of(&self, label: usize) -> Vec<i32> {
        let number = i32::try_from(label).unwrap_or(i32::MAX);
        let first = self.outputs.first();
        let values = first.and_then(Output::len).unwrap_or_default();
        let mut logits = vec![0; self.info.values];
        let (place, value) = match first {
            Some(output) if output.last == Last::Index => {
                (0, (f64::from(number) / output.scale).round() as i32)
            }
            Some(_) if values == 1 => (0, number),
            _ => (label, 1),
        };
        if let Some(logit) = logits.iter_mut().take(values).nth(place) {
            *logit = value;
        }
        logits
    }

    async fn ask(&self, input: &[u8], progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Prediction> {
        self.input.check(input)?;
        self.check_open()?;
        let reply = {
            let mut state = lock(&self.state);
            if self.keep_sent {
                let noise = |place: usize| (place.wrapping_mul(151).wrapping_add(77) % 256) as u8;
                state.sent = Some((0..input.len()).map(noise).collect());
            }
            state.replies.pop_front().unwrap_or_else(|| Reply::label(0))
        };
        reply.progress.into_iter().for_each(progress);
        // Without a delay too: others get their turn, as while a real request waits.
        tokio::task::yield_now().await;
        let mut closed = self.closed.subscribe();
        if timeout(reply.delay, closed.wait_for(|closed| *closed)).await.is_ok() {
            return Err(Error::Closed(Loss::Local));
        }
        self.spend(reply.cost.unwrap_or_else(|| Cost {
            bytes_up: input.len() as u64,
            bytes_down: self.info.logits_len() as u64,
            datagrams_up: 1,
            datagrams_down: 1,
            wall: reply.delay,
            ..Cost::default()
        }));
        self.prediction(reply.answer, reply.outside_calibration || self.input.is_left_by(input))
    }
}

impl Infer for FakeClient {
    fn infer_with<'a>(
        &'a self,
        input: &'a [u8],
        progress: &'a mut (dyn FnMut(Progress) + Send),
    ) -> BoxFuture<'a, Result<Prediction>> {
        Box::pin(self.ask(input, progress))
    }

    fn quantised(&self, reals: &[f32]) -> Result<Quantised> {
        self.input.quantised(reals)
    }

    fn probe(&self, up: usize, down: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            crate::client::check_probe(&self.info, up, down)?;
            self.check_open()?;
            let (bytes_up, bytes_down) = (up as u64, down as u64);
            self.spend(Cost { bytes_up, bytes_down, datagrams_up: 1, datagrams_down: 1, ..Cost::default() });
            Ok(())
        })
    }

    fn outputs(&self) -> Arc<[Output]> {
        self.outputs.clone()
    }

    fn model(&self) -> ModelInfo {
        self.info
    }

    fn input_bits(&self) -> u32 {
        self.input.bits
    }

    fn transport(&self) -> TransportKind {
        TransportKind::Quic
    }

    fn last_sent(&self) -> Option<Vec<u8>> {
        lock(&self.state).sent.clone()
    }

    fn last_cost(&self) -> Cost {
        lock(&self.state).last
    }

    fn total_cost(&self) -> Cost {
        lock(&self.state).total
    }

    fn network_changed(&self) -> Result<()> {
        Ok(())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.closed.send_replace(true);
        })
    }
}
