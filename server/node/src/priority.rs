//! Which threads go first: a bundle is made when nothing else is to do.

use std::error::Error as _;

use tokio::sync::oneshot;

use crate::error::Error;

/// How much less of a core such a thread gets than another that wants it, on Linux: a third of that one's. Not nothing:
/// where requests never end, bundles are what they need. With 10, large bundles of three servers on one machine took about a
/// tenth longer.
#[cfg(any(target_os = "linux", target_os = "android"))]
const STEPS: i32 = 5;

/// Lets this thread, and those that it starts, give way to others from now on. There is no way back. Where a priority is
/// one of whole processes, nothing happens.
pub fn give_way() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = rustix::process::nice(STEPS) {
        tracing::debug!(%error, "threads that make bundles have the priority of all others");
    }
}

/// Lets all parallel computing that is not an inference's ([`seco_protocol`] has threads of its own for that) give way.
/// Call it before there is any: threads that are there already, as a test's may be, stay as they are.
///
/// # Errors
/// [`Error::NoRuntime`] if the system gives no threads.
pub fn compute_behind() -> Result<(), Error> {
    let threads = rayon::ThreadPoolBuilder::new().thread_name(|number| format!("behind-{number}"));
    match threads.start_handler(|_| give_way()).build_global() {
        // There is no second try: without these threads whoever computes would panic.
        Err(error) if error.source().is_some() => Err(Error::NoRuntime),
        _ => Ok(()),
    }
}

/// Runs what may block on a thread of its own that gives way. Nothing if there is no thread, or it panics.
pub async fn behind<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, done) = oneshot::channel();
    let work = move || {
        give_way();
        let _ = sender.send(work());
    };
    std::thread::Builder::new().name("making".to_owned()).spawn(work).ok()?;
    done.await.ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn priority() -> Option<i32> {
        rustix::process::nice(0).ok()
    }

    #[tokio::test]
    async fn others_go_first_and_stay_where_they_are() {
        let usual = priority();
        let lower = usual.map(|usual| (usual + STEPS).min(19));
        assert_eq!(behind(priority).await, Some(lower));
        let started = behind(|| std::thread::spawn(priority).join().unwrap()).await;
        assert_eq!(started, Some(lower));
        assert_eq!(tokio::task::spawn_blocking(priority).await.unwrap(), usual);
        assert_eq!(behind(|| panic!("as expected")).await, None::<()>);
    }
}
