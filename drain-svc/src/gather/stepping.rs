//! Older versions that are written before the newest one of their key.
//!
//! What was accepted could be written in that order. But a lane writes the newest version of a key only, and lanes don't wait
//! for each other; so two rows that swap a unique value by way of a third one come to ask for each other's. Whichever of
//! them has the way round still gathered goes it then: an older version that the database takes gives free what others wait
//! for. It is newer than what the row has, or the database leaves the row as it is; so nothing goes back.

use database::Change;
use model::{DeadLetterCause, Version};
use tokio::time::Instant;

use super::{Entry, Ticket, entry::Origin};

/// Older versions of a key that are tried each time its newest one was refused: who waits for a row that does not come may
/// have many, and each try takes the place of another row.
const STEPS: u32 = 8;

/// The newest version of a key while an older one is written before it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ahead {
    change: Change,
    origin: Origin,
    /// When it is to be tried again if none of the older ones lands.
    until: Instant,
    /// How many older ones may be tried before that, besides the one that is.
    left: u32,
}

impl Entry {
    /// Whether it is an older version that is written before the newest one.
    pub(crate) fn is_step(&self) -> bool {
        self.ticket.ahead.is_some()
    }

    /// Another row is in the newest version's way until then: the next older one goes before it, if there is one.
    pub(super) fn step(self, until: Instant, now: Instant) -> Self {
        self.step_down(until, STEPS, now)
    }

    /// That older version was refused as well: the next one, or the newest when it is time.
    pub(super) fn step_on(self, now: Instant) -> Self {
        let Some((until, left)) = self.ticket.ahead.as_ref().map(|ahead| (ahead.until, ahead.left)) else {
            return self;
        };
        let mut entry = self.whole();
        entry.ticket.attempts += 1;
        entry.step_down(until, left, now)
    }

    fn step_down(mut self, until: Instant, left: u32, now: Instant) -> Self {
        let ticket = &mut self.ticket;
        ticket.held_until = Some(until);
        if left == 0 || planted::is(planted::Bug::OlderDropped) {
            return self;
        }
        let below = ticket.stepped_to.unwrap_or(self.change.version);
        let next = ticket.older.range(..below).next_back().map(|(version, _)| *version);
        // From the newest down again, the next time.
        ticket.stepped_to = next;
        let Some((change, origin)) = next.and_then(|version| ticket.older.remove(&version)) else { return self };
        let (change, origin) =
            (std::mem::replace(&mut self.change, change), std::mem::replace(&mut ticket.origin, origin));
        ticket.ahead = Some(Box::new(Ahead { change, origin, until, left: left - 1 }));
        // Among those that were held: they take turns with the others.
        ticket.held_until = Some(now);
        self
    }

    /// With the newest version as what is to be written.
    pub(super) fn whole(mut self) -> Self {
        if let Some(ahead) = self.ticket.ahead.take() {
            let Ahead { change, origin, until, .. } = *ahead;
            let step = std::mem::replace(&mut self.change, change);
            let of_step = std::mem::replace(&mut self.ticket.origin, origin);
            self.ticket.older.insert(step.version, (step, of_step));
            self.ticket.held_until = Some(until);
        }
        self
    }

    /// Whether there is a newer version to be written once this one has landed: the one that it was to go before, or one that
    /// was given up because another row was in its way. That may be so no longer; but who is given up once more has been
    /// waited for, or whoever writes a key fast enough would keep it from ever being done.
    pub(crate) fn goes_on(&self) -> bool {
        let was_waited_for = |at: &super::Refused| at.reason.cause == DeadLetterCause::Dependent;
        let may_go = |at: &super::Refused| was_waited_for(at) && at.version > self.change.version;
        self.is_step() || !self.ticket.had_chance && self.ticket.refused.iter().any(may_go)
    }

    /// A version has landed: what is newer is to be written not before `until`, and is waited for anew, within bounds
    /// ([`Entry::is_overdue`]).
    pub(super) fn go_on(mut self, until: Instant) -> Self {
        let landed = self.change.version;
        let ticket = &mut self.ticket;
        if let Some(ahead) = ticket.ahead.take() {
            let Ahead { change, origin, .. } = *ahead;
            ticket.older.insert(change.version, (change, origin));
        }
        let refused = std::mem::take(&mut ticket.refused);
        let (again, for_good): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|it| it.reason.cause == DeadLetterCause::Dependent);
        ticket.refused = for_good;
        ticket.had_chance |= !again.is_empty();
        ticket.older.extend(again.into_iter().map(|it| (it.version, (it.change, it.origin))));
        // What has landed is among the older ones: all of them are done with it.
        let newer = ticket.older.split_off(&landed);
        let over = std::mem::replace(&mut ticket.older, newer);
        ticket.memory -= over.values().map(|(_, origin)| origin.memory()).sum::<usize>();
        if let Some((_, (change, origin))) = ticket.older.pop_last() {
            self.change = change;
            ticket.memory -= std::mem::replace(&mut ticket.origin, origin).memory();
        }
        (ticket.failures, ticket.dependent, ticket.stepped_to) = (0, None, None);
        ticket.held_until = Some(until);
        self
    }
}

impl Ticket {
    /// Its newest version that can be written has landed. What is older and was given up for want of another row is
    /// superseded.
    pub(crate) fn forget_superseded(&mut self, landed: Version) {
        self.refused.retain(|it| it.version > landed || it.reason.cause != DeadLetterCause::Dependent);
    }
}
