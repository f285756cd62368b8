//! Which failures are tried again, and when. No I/O.

use std::time::{Duration, Instant};

use proto::Reason;
use tonic::Code;

use crate::ClientError;

/// What a second attempt would mean after a first one of unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing: it only reads, or leads to the same end whenever it takes effect.
    Harmless,
    /// A write without a request id: the first attempt could take effect after the second one was acknowledged, and
    /// after later writes of the record, and bring an old value back. So it is only repeated if the first attempt
    /// certainly had no effect.
    Write,
    /// A write with a request id: whichever attempt comes first takes effect, and the server knows the other by its id,
    /// as long as it remembers that.
    NamedWrite,
}

impl Repeat {
    /// Whether a call that failed so is sent again.
    pub(crate) fn may_follow(self, error: &ClientError) -> bool {
        if error.server().is_some_and(|server| server.do_not_retry) && !error.is(Reason::OutcomeUnknown) {
            return false;
        }
        let passing = match error {
            ClientError::Connect(_) | ClientError::Transport(_) | ClientError::TimedOut(_) => true,
            // An operator has asked for it, and nobody knows until when: the caller decides what to do meanwhile.
            ClientError::Server(_) if error.is(Reason::DrainingDown) => false,
            ClientError::Server(server) => {
                matches!(server.code, Code::Unavailable | Code::ResourceExhausted) || error.is(Reason::Conflict)
            }
            _ => false,
        };
        passing && (self != Self::Write || error.is_refusal())
    }
}

/// When attempts are made: exponential, jittered, never before the server's delay, never past the deadline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    deadline: Instant,
    /// `None`: there is no next attempt.
    next: Option<Duration>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_secs(2);
    /// With less left there is no other attempt: all that could come of it is that it timed out, which would hide what was
    /// answered last.
    const SHORTEST_ATTEMPT: Duration = Duration::from_millis(10);

    pub(crate) fn new(deadline: Instant) -> Self {
        Self { deadline, next: Some(Self::FIRST) }
    }

    /// One attempt, and no other.
    pub(crate) fn none(deadline: Instant) -> Self {
        Self { deadline, next: None }
    }

    /// What is left for attempts.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// How long to wait before the next attempt; `None` if it would come too late. `jitter` is in 0..1.
    pub(crate) fn delay(&mut self, retry_after: Option<Duration>, jitter: f64) -> Option<Duration> {
        let step = self.next?;
        self.next = Some((step * 2).min(Self::LONGEST));
        // With a delay from the server the jitter comes on top of it, so that those whom it refused together don't
        // come back together.
        let delay = match retry_after {
            Some(asked) => asked + step.min(asked.max(Self::FIRST)).mul_f64(jitter),
            None => step.mul_f64(0.5 + jitter / 2.0),
        };
        (delay + Self::SHORTEST_ATTEMPT <= self.remaining()).then_some(delay)
    }

    /// Whether what is left after a wait, which may have taken longer than it was to, is still enough for an attempt.
    pub(crate) fn is_in_time(&self) -> bool {
        self.remaining() >= Self::SHORTEST_ATTEMPT / 2
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use proto::ERROR_DOMAIN;
    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    fn answered(reason: Reason) -> ClientError {
        let details = ErrorDetails::with_error_info(reason.as_str(), ERROR_DOMAIN, HashMap::new());
        Status::with_error_details(reason.code(), "x", details).into()
    }

    #[test]
    fn a_write_follows_only_a_refusal_that_passes() {
        let broken = ClientError::Transport("reset".into());
        let late = ClientError::TimedOut(Duration::from_secs(1));
        let never_sent = ClientError::Connect("refused".into());
        for error in [&broken, &late, &answered(Reason::OutcomeUnknown), &Status::unavailable("a proxy").into()] {
            assert!(Repeat::Harmless.may_follow(error), "{error:?}");
            assert!(!Repeat::Write.may_follow(error), "{error:?}");
        }
        for error in [&broken, &late, &answered(Reason::OutcomeUnknown)] {
            assert!(Repeat::NamedWrite.may_follow(error), "{error:?}");
        }
        for repeat in [Repeat::Harmless, Repeat::Write, Repeat::NamedWrite] {
            assert!(repeat.may_follow(&never_sent));
            assert!(repeat.may_follow(&answered(Reason::ShardClosed)));
            assert!(repeat.may_follow(&answered(Reason::Overloaded)));
            assert!(repeat.may_follow(&answered(Reason::Conflict)));
            assert!(!repeat.may_follow(&answered(Reason::DrainingDown)));
            assert!(!repeat.may_follow(&answered(Reason::EtagMismatch)));
            assert!(!repeat.may_follow(&answered(Reason::WrongType)));
            assert!(!repeat.may_follow(&answered(Reason::RequestIdReused)));
            assert!(!repeat.may_follow(&answered(Reason::LevelNotReached)));
        }
    }

    proptest! {
        #[test]
        fn a_delay_is_never_shorter_than_the_server_asks_and_never_past_the_deadline(
            asked in prop::option::of(0_u64..3_000), jitter in 0.0..1.0_f64, left in 0_u64..5_000, attempts in 1..12_usize,
        ) {
            let left = Duration::from_millis(left);
            let asked = asked.map(Duration::from_millis);
            let mut backoff = Backoff::new(Instant::now() + left);
            for _ in 0..attempts {
                if let Some(delay) = backoff.delay(asked, jitter) {
                    prop_assert!(delay >= asked.unwrap_or_default());
                    prop_assert!(delay + Backoff::SHORTEST_ATTEMPT <= left);
                    prop_assert!(delay <= asked.unwrap_or_default() + Backoff::LONGEST);
                }
            }
        }
    }
}
