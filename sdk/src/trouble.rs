//! What stands in a request's way and passes: restarts, lost connections, full queues.

use crate::log::{Event, Logger};
use crate::{Error, Loss, Result};
use seco_core::Refusal;
use std::time::Duration;
use tokio::time::Instant;

/// The pauses between tries grow from the first of these to the second.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Sessions that one request replaces at most. Each is sealed anew, and a gateway that forgets all of them is not
/// mended by more.
const MOST_SESSIONS: u32 = 4;

/// One request's troubles so far.
pub(crate) struct Trouble {
    /// When the request has to be done.
    deadline: Instant,
    tries: u32,
    sessions: u32,
    /// What went wrong last, until it is mended: there is a new link, or the request was taken.
    seen: Option<Error>,
    log: Logger,
}

impl Trouble {
    pub(crate) fn new(limit: Duration, log: Logger) -> Self {
        Self { deadline: Instant::now() + limit, tries: 0, sessions: 0, seen: None, log }
    }

    /// The connection had ended before the request began.
    pub(crate) fn found(&mut self, loss: Loss) {
        self.seen = Some(Error::Closed(loss));
    }

    /// It is mended: from now on the request itself takes its time.
    pub(crate) fn is_over(&mut self) {
        self.seen = None;
    }

    /// How long to wait before the next try.
    ///
    /// # Errors
    /// `error`, if trying again does not help, or not in time.
    pub(crate) fn pause(&mut self, error: Error) -> Result<Duration> {
        let pause = match &error {
            Error::Closed(Loss::Local) => return Err(error),
            // What a new connection or session mends is mended at once, the first time.
            Error::Closed(_) if self.tries == 0 => Duration::ZERO,
            Error::Refused(Refusal::UnknownSession | Refusal::CounterUsed) => {
                if self.sessions == MOST_SESSIONS {
                    return Err(error);
                }
                self.sessions += 1;
                if self.tries == 0 { Duration::ZERO } else { self.growing() }
            }
            Error::Closed(_)
            | Error::Connect { .. }
            | Error::Timeout { .. }
            | Error::Refused(Refusal::Unavailable { .. }) => self.growing(),
            // It takes what is under way to its end; whoever waits for the connection's end knows sooner.
            Error::Refused(Refusal::ShuttingDown) => jittered(LONGEST),
            // Never sooner than told, and not all devices at the same moment.
            Error::Busy { retry_after } => *retry_after + jittered(*retry_after / 4 + SHORTEST),
            _ => return Err(error),
        };
        if Instant::now() + pause >= self.deadline {
            return Err(error);
        }
        self.log.tell(|| Event::Again { error: &error, pause });
        self.tries += 1;
        self.seen = Some(error);
        Ok(pause)
    }

    /// A pause that doubles.
    fn growing(&self) -> Duration {
        jittered(LONGEST.min(SHORTEST * (1 << self.tries.min(5))))
    }

    /// What to say of a request that failed: where it ran out of time, what kept it from being sent says more.
    pub(crate) fn explain(self, error: Error) -> Error {
        match self.seen {
            Some(seen) if matches!(error, Error::Timeout { .. }) => seen,
            _ => error,
        }
    }
}

/// Whom a request waits for after `error`: a server's place in the deployment file, the gateway's is 0. None where
/// nobody is away.
pub(crate) fn away(error: &Error) -> Option<u8> {
    match error {
        Error::Refused(Refusal::Unavailable { server }) => Some(*server),
        Error::Closed(_)
        | Error::Connect { .. }
        | Error::Timeout { .. }
        | Error::Refused(Refusal::ShuttingDown) => Some(0),
        _ => None,
    }
}

/// Between half and all of a time, by chance: what one restart threw out should not come back all at once.
pub(crate) fn jittered(longest: Duration) -> Duration {
    let mut chance = [0];
    // Without randomness it is half.
    let _ = getrandom::fill(&mut chance);
    longest / 2 + longest * u32::from(chance[0]) / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn unavailable() -> Error {
        Error::Refused(Refusal::Unavailable { server: 1 })
    }

    #[test]
    fn pauses_grow_and_differ() {
        let mut trouble = Trouble::new(LIMIT, Logger::default());
        let pauses: Vec<_> = (0..12).map(|_| trouble.pause(unavailable()).unwrap()).collect();
        for (pause, longest) in
            pauses.iter().zip([50, 100, 200, 400, 800, 1000, 1000, 1000, 1000, 1000, 1000, 1000])
        {
            let longest = Duration::from_millis(longest);
            assert!((longest / 2..=longest).contains(pause), "{pauses:?}");
        }
        assert!(pauses[6..].windows(2).any(|two| two[0] != two[1]), "{pauses:?}");
    }

    #[test]
    fn what_mends_at_once_is_mended_at_once_and_only_the_first_time() {
        for error in [|| Error::Closed(Loss::Restart), || Error::Refused(Refusal::UnknownSession)] {
            let mut trouble = Trouble::new(LIMIT, Logger::default());
            assert_eq!(trouble.pause(error()).unwrap(), Duration::ZERO);
            assert!(trouble.pause(error()).unwrap() > Duration::ZERO);
        }
    }

    #[test]
    fn who_is_busy_is_not_asked_sooner_than_told() {
        let mut trouble = Trouble::new(LIMIT, Logger::default());
        for _ in 0..8 {
            let told = Duration::from_secs(2);
            let pause = trouble.pause(Error::Busy { retry_after: told }).unwrap();
            assert!((told..told + told / 3).contains(&pause), "{pause:?}");
        }
        let late = trouble.pause(Error::Busy { retry_after: LIMIT }).unwrap_err();
        assert!(matches!(late, Error::Busy { retry_after } if retry_after == LIMIT), "{late}");
    }

    #[test]
    fn what_does_not_pass_is_told() {
        for error in [
            Error::Closed(Loss::Local),
            Error::Refused(Refusal::WrongModel),
            Error::Refused(Refusal::TimedOut),
            Error::Protocol(crate::Violation::Dropped),
            Error::Storage(std::io::Error::other("full")),
        ] {
            let text = error.to_string();
            assert_eq!(Trouble::new(LIMIT, Logger::default()).pause(error).unwrap_err().to_string(), text);
        }
        let mut trouble = Trouble::new(LIMIT, Logger::default());
        for _ in 0..MOST_SESSIONS {
            trouble.pause(Error::Refused(Refusal::UnknownSession)).unwrap();
        }
        trouble.pause(Error::Refused(Refusal::CounterUsed)).unwrap_err();
        trouble.pause(unavailable()).unwrap();
    }

    #[test]
    fn time_that_ran_out_is_explained() {
        let timeout = || Error::Timeout { step: "answer", limit: LIMIT };
        let mut trouble = Trouble::new(LIMIT, Logger::default());
        trouble.pause(unavailable()).unwrap();
        assert!(matches!(trouble.explain(timeout()), Error::Refused(_)));
        let mut trouble = Trouble::new(LIMIT, Logger::default());
        trouble.pause(unavailable()).unwrap();
        trouble.is_over();
        assert!(matches!(trouble.explain(timeout()), Error::Timeout { .. }));
    }
}
