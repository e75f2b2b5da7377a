//! The library's one thread, and waiting for what runs there.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio::task::{AbortHandle, JoinHandle};

use crate::SecoError;

/// How long the end of a process waits for what the application does on the library's thread.
#[cfg(feature = "array")]
const LONGEST_REST: std::time::Duration = std::time::Duration::from_secs(5);

/// Started by the first client, and kept: threads are not started and stopped with clients.
static RUNTIME: Mutex<Option<Handle>> = Mutex::new(None);

/// The runtime on the library's thread.
pub fn handle() -> Result<Handle, SecoError> {
    let mut started = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*started {
        return Ok(handle.clone());
    }
    let failed =
        |error: std::io::Error| SecoError::Network { reason: format!("no thread or event queue: {error}") };
    let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("seco".to_owned())
        .spawn(move || runtime.block_on(pending::<()>()))
        .map_err(failed)?;
    Ok(started.insert(handle).clone())
}

/// Lets the library's thread rest for good, as soon as it has returned from what it called of the application. For a
/// process that is about to end, in a language whose code may not be called any more then. Calls of the library that are
/// under way, or made later, do not come to an end.
#[cfg(feature = "array")]
#[uniffi::export]
pub fn rest() {
    let Some(handle) = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
    let (resting, rests) = std::sync::mpsc::channel();
    // Nothing else runs on that thread meanwhile, and nothing will.
    handle.spawn(async move {
        let _ = resting.send(());
        loop {
            std::thread::park();
        }
    });
    // An application that holds up the thread does not hold up the end of its process for ever.
    let _ = rests.recv_timeout(LONGEST_REST);
}

/// Work on the library's thread. Dropping it cancels the work.
pub struct Task<T>(JoinHandle<Result<T, SecoError>>);

impl<T: Send + 'static> Task<T> {
    /// Starts `work`, which `cancellation` may end.
    pub fn spawn(
        runtime: &Handle,
        cancellation: Option<&Cancellation>,
        work: impl Future<Output = Result<T, SecoError>> + Send + 'static,
    ) -> Self {
        let task = Self(runtime.spawn(work));
        if let Some(cancellation) = cancellation {
            cancellation.covers(task.0.abort_handle());
        }
        task
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// The work's, or [`SecoError::Closed`] if it was cancelled.
    pub async fn result(mut self) -> Result<T, SecoError> {
        match (&mut self.0).await {
            Ok(result) => result,
            // A defect. UniFFI reports it to the caller as what it is.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(SecoError::cancelled()),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Cancels the calls that it was passed to, which end with `Closed`; those that it is passed to later end at
/// once.
#[derive(uniffi::Object, Default)]
pub struct Cancellation(Mutex<Covered>);

#[derive(Default)]
struct Covered {
    cancelled: bool,
    calls: Vec<AbortHandle>,
}

#[uniffi::export]
impl Cancellation {
    /// For one call, or for several at once.
    #[uniffi::constructor]
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Cancels the calls. Has no effect on those that have ended.
    pub fn cancel(&self) {
        let mut covered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        covered.cancelled = true;
        covered.calls.drain(..).for_each(|call| call.abort());
    }
}

impl Cancellation {
    fn covers(&self, call: AbortHandle) {
        let mut covered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if covered.cancelled {
            call.abort();
        } else {
            covered.calls.retain(|call| !call.is_finished());
            covered.calls.push(call);
        }
    }
}
