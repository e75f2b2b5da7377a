//! Whether the gateway is still there while a request runs: it looks at what came down, asks for a sign where nothing
//! did, and says when the connection is to be given up.
//!
//! A gateway may compute for minutes, and a network may be slow and lose packets: neither is silence, for a question is
//! answered by the gateway's transport, at once, and asked again. A gateway that was killed and started again answers
//! the next question by ending the connection.

use crate::cost::Cost;
use std::time::Duration;

/// Time to the first look, and to the next one while a sign is owed, where the way is not longer.
const SHORTEST: Duration = Duration::from_millis(250);

/// Longest time between looks: how long a restart can go unnoticed. Address translators forget UDP after 30 seconds.
const LONGEST: Duration = Duration::from_secs(2);

/// Least and most of the silence that is borne: an eighth of a request's time limit, so that there is time for another
/// try. A gateway that was killed and is back is noticed by the next question; this is for one that stays away.
const LEAST: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(6);

/// Bytes a second that the slowest way carries up. What waits on the way holds up all that follows it.
const SLOWEST: u64 = 16 * 1024;

/// What a transport tells of a connection's way.
pub(crate) struct Signs {
    /// From here to the gateway and back.
    pub(crate) round_trip: Duration,
    /// Whether each packet is acknowledged where it can be seen. Otherwise the system sees to what is lost, and only
    /// answers can be seen.
    pub(crate) acknowledged: bool,
}

impl Signs {
    /// Time between questions.
    fn short(&self) -> Duration {
        SHORTEST.max(self.round_trip * 3 / 2)
    }

    /// The longest silence of a gateway that lives, after something that must be answered, with `sent` bytes before it
    /// and in it; at least `least`, for a radio or a tunnel may be silent as long. Eight questions have been asked
    /// meanwhile where they may be lost one by one, and the transport has repeated them; otherwise the system has
    /// repeated one three times.
    fn patience(&self, least: Duration, sent: u64) -> Duration {
        if self.acknowledged {
            least.max(SHORTEST * 2 + self.round_trip * 12)
        } else {
            let carried = Duration::from_millis(sent.saturating_mul(1000) / SLOWEST);
            least.max(Duration::from_secs(4)) + self.round_trip * 8 + carried
        }
    }
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing.
    Alive,
    /// The gateway is to be asked for a sign.
    Ask,
    /// The connection is to be given up.
    Gone,
}

/// One request's looks.
pub(crate) struct Watch {
    /// At the last look.
    seen: Cost,
    /// Silence that is borne in any case.
    least: Duration,
    /// Sent when something came down last.
    sent: u64,
    /// Of that, what may still have been on its way.
    backlog: u64,
    /// Since then, by pauses.
    since: Duration,
    /// Whether the gateway owes a sign.
    owed: bool,
    /// For how long. Only pauses count, as long as they were meant to be: while a device sleeps, nobody listens.
    silence: Duration,
    /// Time to the next look while no sign is owed.
    interval: Duration,
    /// Time to the next look.
    pause: Duration,
}

impl Watch {
    /// For a request that is about to be sent, on which such a time limit is.
    pub(crate) fn new(traffic: Cost, signs: &Signs, limit: Duration) -> Self {
        let short = signs.short();
        // No sooner than what is acknowledged is asked about.
        let interval = if signs.acknowledged { short } else { short * 5 / 2 };
        Self {
            seen: traffic,
            least: (limit / 8).clamp(LEAST, MOST),
            sent: traffic.bytes_up,
            backlog: 0,
            since: Duration::ZERO,
            owed: signs.acknowledged,
            silence: Duration::ZERO,
            interval,
            pause: interval,
        }
    }

    /// Time to the next look.
    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }

    /// Looks, after that time.
    pub(crate) fn look(&mut self, traffic: Cost, signs: &Signs) -> Look {
        let heard = traffic.bytes_down != self.seen.bytes_down;
        self.seen = traffic;
        self.since += self.pause;
        let on_its_way = self.backlog + traffic.bytes_up.saturating_sub(self.sent);
        if heard {
            let carried =
                SLOWEST * u64::try_from(self.since.as_millis()).unwrap_or(u64::MAX / SLOWEST) / 1000;
            self.backlog = on_its_way.saturating_sub(carried);
            (self.owed, self.silence, self.since) = (false, Duration::ZERO, Duration::ZERO);
            self.sent = traffic.bytes_up;
            self.interval = (self.interval * 3 / 2).min(LONGEST.max(signs.short()));
            self.pause = self.interval;
            return Look::Alive;
        }
        let asked = std::mem::replace(&mut self.owed, true);
        if asked {
            self.silence += self.pause;
            if self.silence >= signs.patience(self.least, on_its_way) {
                return Look::Gone;
            }
        }
        self.pause = signs.short();
        // What the system repeats need not be asked twice.
        if asked && !signs.acknowledged { Look::Alive } else { Look::Ask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const QUIC: Signs = Signs { round_trip: MS, acknowledged: true };
    const TCP: Signs = Signs { round_trip: MS, acknowledged: false };
    const PING: u64 = 35;
    const LIMIT: Duration = Duration::from_secs(60);

    /// A request of 1 KB on a way: questions asked by when it ended, and when the connection was given up, if it was.
    /// `answered` says of a question asked at a time when a sign of it comes, if ever.
    fn request(
        signs: &Signs,
        runs: Duration,
        mut answered: impl FnMut(Duration) -> Option<Duration>,
    ) -> (usize, Option<Duration>) {
        let mut traffic = Cost { bytes_up: 10_000, bytes_down: 10_000, ..Cost::default() };
        let mut watch = Watch::new(traffic, signs, LIMIT);
        let (mut now, mut asked) = (Duration::ZERO, 0);
        let mut coming = Vec::new();
        traffic.bytes_up += 1000;
        if signs.acknowledged {
            coming.extend(answered(now));
        }
        loop {
            now += watch.pause();
            if now >= runs {
                return (asked, None);
            }
            let before = coming.len();
            coming.retain(|when| *when > now);
            traffic.bytes_down += PING * (before - coming.len()) as u64;
            match watch.look(traffic, signs) {
                Look::Alive => {}
                Look::Ask => {
                    asked += 1;
                    traffic.bytes_up += PING;
                    coming.extend(answered(now));
                }
                Look::Gone => return (asked, Some(now)),
            }
        }
    }

    #[test]
    fn a_gateway_that_computes_is_asked_seldom_and_never_given_up() {
        for signs in [QUIC, TCP] {
            let at_once = |now| Some(now + signs.round_trip);
            assert_eq!(request(&signs, 600 * MS, at_once), (0, None), "short requests cost nothing");
            let (asked, gone) = request(&signs, 600_000 * MS, at_once);
            assert_eq!(gone, None);
            assert!((250..300).contains(&asked), "{asked}");
        }
    }

    #[test]
    fn a_gateway_that_dies_is_noticed_in_seconds() {
        for (signs, longest) in [(QUIC, 8500), (TCP, 8500)] {
            for dies in [0, 1, 200, 700, 3000, 10_000, 60_001, 61_000] {
                let until = |now| (now < dies * MS).then_some(now + signs.round_trip);
                let (_, gone) = request(&signs, 600_000 * MS, until);
                let gone = gone.unwrap();
                assert!(
                    gone >= dies * MS + 5500 * MS && gone <= dies * MS + longest * MS,
                    "{dies}: {gone:?}"
                );
            }
        }
    }

    /// A gateway that is back answers the first question, if only to say that it knows nothing.
    #[test]
    fn whoever_is_silent_is_asked_again_soon() {
        let mut questions = Vec::new();
        request(&QUIC, 600_000 * MS, |now| {
            questions.push(now);
            (now < 30_000 * MS).then_some(now + MS)
        });
        let silent = questions.iter().filter(|when| **when >= 30_000 * MS).copied().collect::<Vec<_>>();
        assert!(silent.len() >= 8, "{silent:?}");
        assert!(silent.windows(2).all(|two| two[1] - two[0] == SHORTEST), "{silent:?}");
    }

    #[test]
    fn slow_and_lossy_networks_are_not_silence() {
        let mut dice = 0x9e37_79b9_7f4a_7c15u64;
        let mut throw = move || {
            dice ^= dice >> 12;
            dice ^= dice << 25;
            dice ^= dice >> 27;
            (dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 1000
        };
        for round_trip in [1u32, 50, 300, 1000, 3000] {
            let signs = Signs { round_trip: round_trip * MS, acknowledged: true };
            for _ in 0..200 {
                // A tenth is lost each way, and nothing is repeated by the transport; times vary by half.
                let answered = |now| {
                    let passes = throw() >= 100 && throw() >= 100;
                    passes.then(|| now + round_trip * MS * (500 + throw() as u32) / 1000)
                };
                assert_eq!(request(&signs, 60_000 * MS, answered).1, None, "{round_trip} ms");
            }
        }
    }

    /// A tunnel, another cell, a virtual machine that is moved.
    #[test]
    fn gaps_of_some_seconds_are_not_silence() {
        for signs in [QUIC, TCP] {
            for begins in (0..40_000).step_by(370) {
                let gap = begins * MS..(begins + 5000) * MS;
                // What is asked within is repeated by the system, or lost.
                let answered = |now: Duration| match gap.contains(&now) {
                    true if signs.acknowledged => None,
                    true => Some(gap.end + signs.round_trip),
                    false => Some(now + signs.round_trip),
                };
                assert_eq!(request(&signs, 60_000 * MS, answered).1, None, "at {begins}");
            }
        }
    }

    /// Who has little time is told of silence while there is some for another try.
    #[test]
    fn a_short_limit_is_a_short_patience() {
        let traffic = Cost::default();
        for (limit, silence) in [(1, 2), (16, 2), (32, 4), (48, 6), (3600, 6)] {
            let mut watch = Watch::new(traffic, &QUIC, Duration::from_secs(limit));
            let mut waited = watch.pause();
            while watch.look(traffic, &QUIC) != Look::Gone {
                waited += watch.pause();
            }
            let expected = Duration::from_secs(silence);
            assert!(waited >= expected && waited <= expected + 2 * SHORTEST, "{limit}: {waited:?}");
        }
    }

    /// A first answer does not say that all of what was sent beside it has arrived.
    #[test]
    fn what_was_sent_before_an_answer_may_still_be_on_its_way() {
        let now = |bytes_up, bytes_down| Cost { bytes_up, bytes_down, ..Cost::default() };
        let mut watch = Watch::new(now(0, 0), &TCP, LIMIT);
        assert_eq!(watch.look(now(300_000, 10), &TCP), Look::Alive);
        let mut waited = Duration::ZERO;
        while watch.look(now(300_000, 10), &TCP) != Look::Gone {
            waited += watch.pause();
        }
        assert!(waited >= Duration::from_secs(22), "{waited:?}");
    }

    /// A long request takes its time to leave, and nothing comes down meanwhile.
    #[test]
    fn a_long_request_on_a_slow_way_is_not_silence() {
        let up = |bytes_up| Cost { bytes_up, ..Cost::default() };
        let mut watch = Watch::new(up(0), &TCP, LIMIT);
        let mut waited = Duration::ZERO;
        while watch.look(up(150_000), &TCP) != Look::Gone {
            waited += watch.pause();
        }
        assert!(waited >= Duration::from_secs(13), "{waited:?}");
    }
}
