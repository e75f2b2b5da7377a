//! What an application codes against, so that its tests can bring another client than the real one.

use crate::{Client, Cost, ModelInfo, Output, Prediction, Progress, Quantised, Result, TransportKind};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

/// Requests of [`Client::infer_many`] at the same time. Half of what a gateway takes on one connection.
const WINDOW: usize = 8;

/// What a call of [`Infer`] gives. Boxed, so that there is a `dyn Infer`: an application holds one in a field and takes
/// no parameter for its type wherever it passes. A request allocates anyway, and takes far longer than a call through a
/// pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a connected client does: [`Client`], and `FakeClient` of this crate's feature `testing`.
///
/// Each call does what [`Client`]'s of the same name does, and is cancelled by dropping its future. Connecting is not
/// among them, for it takes what only real servers have. Code that is given a [`Client`] itself calls its own methods,
/// which box nothing.
pub trait Infer: Send + Sync {
    /// [`Client::infer_with`]. A closure is passed as `&mut |progress| ...`.
    ///
    /// # Errors
    /// As [`Client::infer`].
    fn infer_with<'a>(
        &'a self,
        input: &'a [u8],
        progress: &'a mut (dyn FnMut(Progress) + Send),
    ) -> BoxFuture<'a, Result<Prediction>>;

    /// [`Client::infer`].
    ///
    /// # Errors
    /// As [`Client::infer`].
    fn infer<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Prediction>> {
        Box::pin(async move { self.infer_with(input, &mut |_| {}).await })
    }

    /// [`Client::quantised`], of 32-bit numbers.
    ///
    /// # Errors
    /// As [`Client::quantised`].
    fn quantised(&self, reals: &[f32]) -> Result<Quantised>;

    /// [`Client::infer_quantised`].
    ///
    /// # Errors
    /// As [`Client::infer`].
    fn infer_quantised<'a>(
        &'a self,
        input: &'a Quantised,
        progress: &'a mut (dyn FnMut(Progress) + Send),
    ) -> BoxFuture<'a, Result<Prediction>> {
        Box::pin(async move {
            let mut prediction = self.infer_with(&input.bytes, progress).await?;
            prediction.outside_calibration |= input.cut;
            Ok(prediction)
        })
    }

    /// [`Client::infer_reals`], of 32-bit numbers.
    ///
    /// # Errors
    /// As [`Client::infer_reals`].
    fn infer_reals<'a>(&'a self, reals: &'a [f32]) -> BoxFuture<'a, Result<Prediction>> {
        Box::pin(async move { self.infer_quantised(&self.quantised(reals)?, &mut |_| {}).await })
    }

    /// [`Client::infer_many`]: one result per input, in their order.
    fn infer_many<'a>(&'a self, inputs: &'a [&'a [u8]]) -> BoxFuture<'a, Vec<Result<Prediction>>> {
        Box::pin(many(inputs, move |input| self.infer(input)))
    }

    /// [`Client::probe`].
    ///
    /// # Errors
    /// As [`Client::probe`].
    fn probe(&self, up: usize, down: usize) -> BoxFuture<'_, Result<()>>;

    /// [`Client::outputs`].
    fn outputs(&self) -> Arc<[Output]>;

    /// [`Client::model`].
    fn model(&self) -> ModelInfo;

    /// [`Client::input_bits`].
    fn input_bits(&self) -> u32;

    /// [`Client::transport`].
    fn transport(&self) -> TransportKind;

    /// [`Client::last_sent`].
    fn last_sent(&self) -> Option<Vec<u8>>;

    /// [`Client::last_cost`].
    fn last_cost(&self) -> Cost;

    /// [`Client::total_cost`].
    fn total_cost(&self) -> Cost;

    /// [`Client::network_changed`].
    ///
    /// # Errors
    /// As [`Client::network_changed`].
    fn network_changed(&self) -> Result<()>;

    /// [`Client::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
}

// Inline, so that nothing of it is compiled where it is not called: a library for mobile systems calls the client itself, and
// would otherwise have requests' code twice.
impl Infer for Client {
    #[inline]
    fn infer_with<'a>(
        &'a self,
        input: &'a [u8],
        progress: &'a mut (dyn FnMut(Progress) + Send),
    ) -> BoxFuture<'a, Result<Prediction>> {
        Box::pin(Self::infer_with(self, input, progress))
    }

    #[inline]
    fn infer<'a>(&'a self, input: &'a [u8]) -> BoxFuture<'a, Result<Prediction>> {
        Box::pin(Self::infer(self, input))
    }

    #[inline]
    fn quantised(&self, reals: &[f32]) -> Result<Quantised> {
        Self::quantised(self, reals)
    }

    #[inline]
    fn probe(&self, up: usize, down: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(Self::probe(self, up, down))
    }

    #[inline]
    fn outputs(&self) -> Arc<[Output]> {
        Self::outputs(self)
    }

    #[inline]
    fn model(&self) -> ModelInfo {
        Self::model(self)
    }

    #[inline]
    fn input_bits(&self) -> u32 {
        Self::input_bits(self)
    }

    #[inline]
    fn transport(&self) -> TransportKind {
        Self::transport(self)
    }

    #[inline]
    fn last_sent(&self) -> Option<Vec<u8>> {
        Self::last_sent(self)
    }

    #[inline]
    fn last_cost(&self) -> Cost {
        Self::last_cost(self)
    }

    #[inline]
    fn total_cost(&self) -> Cost {
        Self::total_cost(self)
    }

    #[inline]
    fn network_changed(&self) -> Result<()> {
        Self::network_changed(self)
    }

    #[inline]
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Self::close(self))
    }
}

/// Asks about every one of `inputs`, [`WINDOW`] at a time.
pub(crate) async fn many<'i, I, F>(
    inputs: &'i [I],
    mut ask: impl FnMut(&'i I) -> Pin<Box<F>>,
) -> Vec<Result<Prediction>>
where
    F: Future<Output = Result<Prediction>> + ?Sized,
{
    let mut waiting = inputs.iter().enumerate();
    let (mut running, mut done) = (Vec::with_capacity(WINDOW), Vec::new());
    done.resize_with(inputs.len(), || None);
    poll_fn(|context| {
        loop {
            while running.len() < WINDOW
                && let Some((index, input)) = waiting.next()
            {
                running.push((index, ask(input)));
            }
            let before = running.len();
            running.retain_mut(|(index, request)| match request.as_mut().poll(context) {
                Poll::Ready(result) => {
                    if let Some(place) = done.get_mut(*index) {
                        *place = Some(result);
                    }
                    false
                }
                Poll::Pending => true,
            });
            // New requests must be polled once, or nobody would wake this task for them.
            match (running.len(), before) {
                (0, 0) => return Poll::Ready(()),
                (now, before) if now == before => return Poll::Pending,
                _ => {}
            }
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
