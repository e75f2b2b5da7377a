//! The library's one thread, and waiting for what runs there.

use std::future::pending;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

use crate::SecoError;

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

/// Work on the library's thread. Dropping it cancels the work.
pub struct Task<T>(JoinHandle<Result<T, SecoError>>);

impl<T: Send + 'static> Task<T> {
    /// Starts `work`.
    pub fn spawn(
        runtime: &Handle,
        work: impl Future<Output = Result<T, SecoError>> + Send + 'static,
    ) -> Self {
        Self(runtime.spawn(work))
    }

    /// What cancels the work from elsewhere.
    pub fn abort_handle(&self) -> tokio::task::AbortHandle {
        self.0.abort_handle()
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
