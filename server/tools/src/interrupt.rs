//! Ctrl-C and SIGTERM.

use crate::Error;

/// Signals that ask this process to end.
pub struct Interrupts {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

/// From now on the signals do not end the process by themselves.
pub fn listen() -> Result<Interrupts, Error> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let open = |kind| signal(kind).map_err(|_| Error::no_runtime());
        Ok(Interrupts {
            terminate: open(SignalKind::terminate())?,
            interrupt: open(SignalKind::interrupt())?,
        })
    }
    #[cfg(not(unix))]
    Ok(Interrupts {})
}

impl Interrupts {
    /// Waits for one of them.
    pub async fn wait(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
