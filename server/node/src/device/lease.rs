//! What is leased ahead for the next request of a device's connection: one bundle at most, and only while its requests
//! follow each other.
//!
//! A bundle is spent for one number of one incarnation, the one above all that were used. Requests may overtake each other,
//! so it stays while a few later ones are answered; then it is given up, as with the connection. What is given up is lost, so
//! whoever asks once and goes, or now and then, is leased nothing, and whoever leaves numbers out seldom anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seco_core::{ModelId, Refusal};
use tokio::time::timeout;

use super::request::{Device, told, unavailable};
use crate::access::sessions::{Connected, Pads};
use crate::cluster::{Coordinator, Lease};
use crate::failure::Failure;
use crate::service::leases::Asked;

/// A connection's last two answers were no further apart where a bundle is leased to it.
const RHYTHM: Duration = Duration::from_secs(30);
/// What is leased stays while so many later requests are answered, in so much time.
const LATER: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(2);
/// Requests that are remembered whose leases were lost.
const LOST: usize = 16;
/// The gateway's number.
const GATEWAY: usize = 0;

/// A request: its model and its connection's incarnation, and its number there. An incarnation of one name may be open for
/// two models.
type Numbered = ((ModelId, Connected), u64);

/// What is leased to a connection, and for which request; and those whose leases were lost.
pub(super) struct Ahead<T> {
    held: Option<Held<T>>,
    lost: VecDeque<Numbered>,
    /// When its last request was answered.
    answered: Option<Instant>,
}

struct Held<T> {
    request: Numbered,
    lease: T,
    /// How many later requests were answered, and when the first.
    passed: Option<(u32, Instant)>,
}

/// What there is for a request.
enum Found<T> {
    Leased(T),
    /// It was lost, and with it the request's number.
    Lost,
    Nothing,
}

impl<T> Default for Ahead<T> {
    fn default() -> Self {
        Self { held: None, lost: VecDeque::new(), answered: None }
    }
}

impl<T> Ahead<T> {
    fn hold(&mut self, request: Numbered, lease: T) {
        self.held = Some(Held { request, lease, passed: None });
    }

    /// What there is for a request, once.
    fn take(&mut self, request: &Numbered) -> Found<T> {
        if let Some(held) = self.held.take_if(|held| held.request == *request) {
            return Found::Leased(held.lease);
        }
        match self.lost.iter().position(|lost| lost == request).and_then(|at| self.lost.remove(at)) {
            Some(_) => Found::Lost,
            None => Found::Nothing,
        }
    }

    /// A request was answered. Says whether a bundle is to be leased for the next: none is, and the answer before came
    /// shortly before. Where one is lost with this answer, those before it do not count.
    fn answered(&mut self, answered: &Numbered, now: Instant, is_over: impl FnOnce(&T) -> bool) -> bool {
        let before = self.answered.replace(now);
        if self.waits(answered, now, is_over) || self.lose() {
            return false;
        }
        before.is_some_and(|before| now.saturating_duration_since(before) < RHYTHM)
    }

    /// Whether what is leased still waits for its request, after another was answered.
    fn waits(&mut self, answered: &Numbered, now: Instant, is_over: impl FnOnce(&T) -> bool) -> bool {
        let Some(Held { request, lease, passed }) = &mut self.held else { return false };
        if is_over(lease) {
            return false;
        }
        if request.0 == answered.0 && answered.1 < request.1 {
            return true;
        }
        let (later, first) = passed.get_or_insert((0, now));
        *later += 1;
        *later <= LATER && now.duration_since(*first) < PATIENCE
    }

    /// What was leased failed its request: the connection has to find its rhythm again, lest every second request fail for
    /// as long as whatever it was.
    fn broke(&mut self) {
        self.answered = None;
    }

    /// Gives it up; says whether there was one.
    fn lose(&mut self) -> bool {
        let Some(Held { request, .. }) = self.held.take() else { return false };
        self.lost.truncate(LOST - 1);
        self.lost.push_front(request);
        true
    }
}

/// How a request is answered.
pub(super) enum Begun {
    /// By what was begun ahead for it.
    Ahead(Lease),
    /// With what this server's pads for it come from.
    Now(Pads),
}

impl Device {
    /// Uses a request's number, or what was leased with it. In one step: what is leased takes its number too.
    pub(super) fn begin(
        &self,
        model: &Coordinator,
        connected: Connected,
        counter: u64,
    ) -> Result<Begun, Refusal> {
        let mut ahead = self.ahead();
        match ahead.take(&((model.service.info.id, connected), counter)) {
            Found::Leased(lease) if !lease.is_over() => Ok(Begun::Ahead(lease)),
            // The device did nothing wrong: it asks again by itself, with another number.
            Found::Leased(_) | Found::Lost => {
                ahead.broke();
                Err(unavailable(GATEWAY))
            }
            Found::Nothing => match model.number(&connected, counter) {
                Ok(pads) => Ok(Begun::Now(pads)),
                Err(Failure::CounterUsed) => Err(Refusal::CounterUsed),
                Err(_) => Err(Refusal::UnknownSession),
            },
        }
    }

    /// The masked logits, by what was begun ahead.
    pub(super) async fn answer_ahead(
        &self,
        model: &Coordinator,
        connected: &Connected,
        lease: Lease,
        input: &[u8],
    ) -> Result<Vec<u32>, Refusal> {
        let under_way = [self.cluster.drain().again(), model.service.drain.again()];
        let asked = lease.ask(Asked { input: input.to_vec(), under_way });
        let answer = timeout(self.cluster.patience(), asked).await;
        if !matches!(answer, Ok(Ok(_))) {
            self.ahead().broke();
        }
        let answer = answer.map_err(|_| Refusal::TimedOut)?;
        answer.map_err(|blame| match blame {
            None => unavailable(GATEWAY),
            Some(blame) if blame.failure == Failure::UnknownSession => {
                model.forget(&connected.0);
                Refusal::UnknownSession
            }
            Some(blame) => match told(&blame) {
                // The next request has none, and may do better.
                Refusal::Internal | Refusal::TimedOut | Refusal::CounterUsed => {
                    unavailable(blame.failure.server().unwrap_or(blame.server))
                }
                told => told,
            },
        })
    }

    /// Leases a bundle for the connection's next request, once two were answered shortly after each other, if there is one
    /// to spare.
    pub(super) fn lease_next(&self, model: &Arc<Coordinator>, connected: Connected, answered: u64) {
        let incarnation = (model.service.info.id, connected);
        let mut ahead = self.ahead();
        // Not to whom the next request would be refused.
        if !ahead.answered(&(incarnation, answered), Instant::now(), Lease::is_over)
            || !model.leases()
            || !self.may_pay()
        {
            return;
        }
        let leased = self.place.lease().and_then(|leased| model.lease(&connected, leased));
        if let Some((number, lease)) = leased {
            ahead.hold((incarnation, number), lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use seco_core::{IncarnationId, SessionId};

    use super::*;

    fn request_for(model: u8, connection: u8, number: u64) -> Numbered {
        let connected = (SessionId([connection; 16]), IncarnationId([connection; 16]));
        ((ModelId([model; 32]), connected), number)
    }

    fn request(connection: u8, number: u64) -> Numbered {
        request_for(1, connection, number)
    }

    fn found<T>(found: Found<T>) -> Option<T> {
        match found {
            Found::Leased(lease) => Some(lease),
            Found::Lost => panic!("it was lost"),
            Found::Nothing => None,
        }
    }

    fn lost(ahead: &mut Ahead<u8>, request: &Numbered) -> bool {
        matches!(ahead.take(request), Found::Lost)
    }

    #[test]
    fn a_lease_is_for_its_request_once() {
        let mut ahead = Ahead::default();
        ahead.hold(request(1, 5), 7);
        for other in [request(1, 4), request(1, 6), request(2, 5)] {
            assert_eq!(found(ahead.take(&other)), None);
        }
        assert_eq!(found(ahead.take(&request(1, 5))), Some(7));
        assert_eq!(found(ahead.take(&request(1, 5))), None);
    }

    /// Nothing keeps a device from opening one session for two models, with one nonce on one connection.
    #[test]
    fn a_lease_is_for_its_model() {
        let mut ahead = Ahead::default();
        ahead.hold(request_for(1, 1, 5), 7);
        assert_eq!(found(ahead.take(&request_for(2, 1, 5))), None);
        // Of another model an answer is none before it.
        let now = Instant::now();
        assert!((1..=3).map(|n| ahead.waits(&request_for(2, 1, n), now, |_| false)).eq([true, true, false]));
        assert!(ahead.lose() && !lost(&mut ahead, &request_for(2, 1, 5)));
        assert!(lost(&mut ahead, &request_for(1, 1, 5)));
    }

    /// Requests overtake each other: neither an earlier nor a few later answers end it.
    #[test]
    fn a_lease_waits_while_a_few_others_are_answered() {
        let (now, mut ahead) = (Instant::now(), Ahead::default());
        let late = now + PATIENCE;
        assert!(!ahead.waits(&request(1, 4), now, |_| false), "there is none");
        ahead.hold(request(1, 5), 7);
        for _ in 0..9 {
            assert!(ahead.waits(&request(1, 4), late, |_| false), "one before it");
        }
        assert!(!ahead.waits(&request(1, 4), now, |_| true), "it has ended");
        assert!(ahead.waits(&request(1, 6), now, |_| false) && ahead.waits(&request(1, 7), now, |_| false));
        assert!(!ahead.waits(&request(1, 8), now, |_| false), "the third");
        ahead.hold(request(1, 5), 7);
        assert!(ahead.waits(&request(1, 6), now, |_| false));
        assert!(!ahead.waits(&request(1, 7), late, |_| false), "too late");
        // Those of another session on the connection count as well: it must not block it.
        ahead.hold(request(1, 5), 7);
        assert!((1..=3).map(|n| ahead.waits(&request(2, n), now, |_| false)).eq([true, true, false]));
    }

    #[test]
    fn a_request_whose_lease_was_lost_is_told_so_once() {
        let mut ahead = Ahead::default();
        assert!(!ahead.lose());
        for number in 0..2 * LOST as u64 {
            ahead.hold(request(1, number), 7);
            assert!(ahead.lose());
        }
        assert!(!lost(&mut ahead, &request(1, LOST as u64 - 1)), "forgotten");
        assert!(!lost(&mut ahead, &request(2, LOST as u64)), "another's");
        assert!(lost(&mut ahead, &request(1, LOST as u64)) && !lost(&mut ahead, &request(1, LOST as u64)));
    }

    /// Who asks once, or now and then, is leased nothing; nor is who did not ask for what was leased, until two of its
    /// requests were answered in a row again.
    #[test]
    fn a_connection_in_rhythm_is_leased_to() {
        let mut ahead = Ahead::default();
        let start = Instant::now();
        let short = RHYTHM / 2;
        let answered = |ahead: &mut Ahead<u8>, number, after| {
            ahead.answered(&request(1, number), start + after, |_| false)
        };
        assert!(!answered(&mut ahead, 0, short), "the first");
        assert!(!answered(&mut ahead, 1, short + RHYTHM), "after a pause");
        assert!(answered(&mut ahead, 2, 2 * RHYTHM));
        ahead.hold(request(1, 3), 7);
        assert!(!answered(&mut ahead, 2, 2 * RHYTHM), "there is one");
        assert_eq!(found(ahead.take(&request(1, 3))), Some(7));
        assert!(answered(&mut ahead, 3, 2 * RHYTHM + short));
        // Its request does not come.
        ahead.hold(request(1, 4), 7);
        assert!(!answered(&mut ahead, 5, 3 * RHYTHM), "it may come still");
        assert!(!answered(&mut ahead, 6, 3 * RHYTHM + PATIENCE), "lost");
        assert!(answered(&mut ahead, 7, 3 * RHYTHM + PATIENCE));
        // It fails its request, which is answered at the second try, with another number.
        ahead.hold(request(1, 8), 7);
        assert_eq!(found(ahead.take(&request(1, 8))), Some(7));
        ahead.broke();
        assert!(!answered(&mut ahead, 9, 3 * RHYTHM + PATIENCE + short), "it may fail again");
        assert!(answered(&mut ahead, 10, 3 * RHYTHM + PATIENCE + short));
    }
}
