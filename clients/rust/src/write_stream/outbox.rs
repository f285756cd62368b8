//! Which writes may be sent, which are under way, and which are sent again. No I/O.
//!
//! Of one key one write is under way at a time, from when it is sent until its result is known for good: so whatever is
//! sent again, of a write that was refused, or whose result was lost with its connection, it lands behind no later one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{
    Accepted, ClientError, Write,
    key_group::KeyGroup,
    retry::{Backoff, Repeat},
};

/// A write that was handed in, and who waits for its result.
#[derive(Debug)]
pub(super) struct Entry<A> {
    pub(super) write: Write,
    pub(super) id: Option<String>,
    /// What it may be about; `None` if that is no record at all.
    pub(super) group: Option<KeyGroup>,
    pub(super) answer: A,
    /// From when it is first sent.
    backoff: Option<Backoff>,
    /// An attempt at it may have taken effect.
    unsettled: bool,
}

impl<A> Entry<A> {
    pub(super) fn new(write: Write, id: Option<String>, group: Option<KeyGroup>, answer: A) -> Self {
        Self { write, id, group, answer, backoff: None, unsettled: false }
    }

    /// After what time it is sent again; `None`: never.
    fn again(&mut self, error: &ClientError, jitter: f64) -> Option<Duration> {
        let repeat = if self.id.is_some() { Repeat::NamedWrite } else { Repeat::Write };
        let backoff = self.backoff.as_mut().filter(|_| repeat.may_follow(error))?;
        backoff.delay(error.retry_after(), jitter)
    }

    fn fail(self, error: ClientError) -> Settled<A> {
        let hides_unknown = self.unsettled && error.is_refusal();
        (self.answer, Err(if hides_unknown { ClientError::Unsettled(Box::new(error)) } else { error }))
    }
}

/// The result of a write, for good, and who waits for it.
pub(super) type Settled<A> = (A, Result<Accepted, ClientError>);

/// All writes without a result.
#[derive(Debug)]
pub(super) struct Outbox<A> {
    entries: HashMap<u64, Entry<A>>,
    next: u64,
    /// Those that may be sent, in their order.
    ready: BTreeSet<u64>,
    /// Of each key the one that is under way, or may be, and those that wait for it.
    queues: HashMap<KeyGroup, VecDeque<u64>>,
    /// Those that were sent over the present connection, in that order.
    sent: VecDeque<u64>,
    /// Those that are sent again, and when.
    later: BTreeMap<(Instant, u64), ()>,
}

impl<A> Default for Outbox<A> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            next: 0,
            ready: BTreeSet::new(),
            queues: HashMap::new(),
            sent: VecDeque::new(),
            later: BTreeMap::new(),
        }
    }
}

impl<A> Outbox<A> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something may be sent.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether results are waited for.
    pub(super) fn has_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    pub(super) fn push(&mut self, entry: Entry<A>) {
        let at = self.next;
        self.next += 1;
        let is_first = match &entry.group {
            Some(group) => {
                let queue = self.queues.entry(group.clone()).or_default();
                queue.push_back(at);
                queue.len() == 1
            }
            None => true,
        };
        if is_first {
            self.ready.insert(at);
        }
        self.entries.insert(at, entry);
    }

    /// The writes of the next message: one, and more up to these bounds. `backoff` says for how long one is tried.
    pub(super) fn take_ready(
        &mut self,
        max_items: usize,
        max_bytes: usize,
        backoff: impl Fn() -> Backoff,
    ) -> Vec<&Entry<A>> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < max_items.max(1)
            && let Some(&at) = self.ready.first()
        {
            let Some(entry) = self.entries.get_mut(&at) else { break };
            bytes += entry.write.bytes_at_most();
            if !taken.is_empty() && bytes > max_bytes {
                break;
            }
            entry.backoff.get_or_insert_with(&backoff);
            self.ready.remove(&at);
            self.sent.push_back(at);
            taken.push(at);
        }
        taken.iter().filter_map(|at| self.entries.get(at)).collect()
    }

    /// The result of the first of those that were sent; `Err` if nothing was.
    pub(super) fn answered(
        &mut self,
        result: Result<Accepted, ClientError>,
        now: Instant,
        jitter: f64,
    ) -> Result<Option<Settled<A>>, ClientError> {
        let at =
            self.sent.pop_front().ok_or_else(|| ClientError::BadAnswer("it has more results than writes".into()))?;
        Ok(self.judge(at, result, now, jitter))
    }

    /// The connection is over: none of those that were sent gets a result from it any more.
    pub(super) fn ended(&mut self, error: &ClientError, now: Instant, jitter: impl Fn() -> f64) -> Vec<Settled<A>> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_iter().filter_map(|at| self.judge(at, Err(error.clone()), now, jitter())).collect()
    }

    /// No connection can be made: all fail.
    pub(super) fn fail_all(&mut self, error: &ClientError) -> Vec<Settled<A>> {
        let mut all: Vec<_> = std::mem::take(self).entries.into_iter().collect();
        all.sort_unstable_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, entry)| entry.fail(error.clone())).collect()
    }

    /// When the next one is sent again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|(&(due, _), ())| due)
    }

    /// Those whose time has come may be sent.
    pub(super) fn come_due(&mut self, now: Instant) {
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now
        {
            self.ready.insert(entry.remove_entry().0.1);
        }
    }

    fn judge(
        &mut self,
        at: u64,
        result: Result<Accepted, ClientError>,
        now: Instant,
        jitter: f64,
    ) -> Option<Settled<A>> {
        let entry = self.entries.get_mut(&at)?;
        if let Err(error) = &result
            && let Some(delay) = entry.again(error, jitter)
        {
            entry.unsettled |= !error.is_refusal();
            self.later.insert((now + delay, at), ());
            return None;
        }
        let entry = self.entries.remove(&at)?;
        if let Some(group) = &entry.group
            && let Some(queue) = self.queues.get_mut(group)
        {
            queue.pop_front();
            match queue.front() {
                Some(&next) => drop(self.ready.insert(next)),
                None => drop(self.queues.remove(group)),
            }
        }
        Some(match result {
            Ok(accepted) => (entry.answer, Ok(accepted)),
            Err(error) => entry.fail(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use proto::{ERROR_DOMAIN, Reason};
    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;
    use crate::{Row, TableRef, key_group::KeyPart};

    fn entry(key: i64, answer: u64) -> Entry<u64> {
        let group = KeyGroup::Key(TableRef::new("", "t"), vec![KeyPart::Number(key.to_string())]);
        Entry::new(Write::put("t", Row::new().set("id", key)), Some(format!("r{answer}")), Some(group), answer)
    }

    fn backoff() -> Backoff {
        Backoff::new(Instant::now() + Duration::from_secs(60))
    }

    fn refused(reason: Reason) -> ClientError {
        let details = ErrorDetails::with_error_info(reason.as_str(), ERROR_DOMAIN, HashMap::new());
        Status::with_error_details(reason.code(), "x", details).into()
    }

    fn accepted() -> Accepted {
        Accepted { reached: None, etag: String::new(), token: String::new() }
    }

    fn take(outbox: &mut Outbox<u64>) -> Vec<u64> {
        outbox.take_ready(100, 1 << 20, backoff).iter().map(|entry| entry.answer).collect()
    }

    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn of_one_key_one_write_is_under_way() {
        let mut outbox = Outbox::default();
        for (answer, key) in [1, 2, 1, 1].into_iter().enumerate() {
            outbox.push(entry(key, answer as u64));
        }
        assert_eq!(take(&mut outbox), [0, 1]);
        assert!(take(&mut outbox).is_empty());
        let settled = outbox.answered(Ok(accepted()), Instant::now(), 0.5);
        assert!(matches!(settled, Ok(Some((0, Ok(_))))));
        assert_eq!(take(&mut outbox), [2]);
    }

    #[test]
    fn what_has_no_result_when_the_connection_breaks_is_sent_again_before_later_ones_of_its_key() {
        let mut outbox = Outbox::default();
        for (answer, key) in [1, 1, 2].into_iter().enumerate() {
            outbox.push(entry(key, answer as u64));
        }
        assert_eq!(take(&mut outbox), [0, 2]);
        let now = Instant::now();
        assert!(outbox.ended(&ClientError::Transport("reset".into()), now, || 0.5).is_empty());
        assert!(!outbox.has_ready() && outbox.next_due().is_some());
        outbox.come_due(now + SOON);
        assert_eq!(take(&mut outbox), [0, 2]);
        // Refused for good now, but the first attempt may have taken effect.
        let settled = outbox.answered(Err(refused(Reason::AlreadyExists)), now, 0.5);
        assert!(matches!(settled, Ok(Some((0, Err(ClientError::Unsettled(_)))))), "{settled:?}");
        assert_eq!(take(&mut outbox), [1]);
    }

    #[test]
    fn a_refusal_that_passes_is_no_result_and_one_that_does_not_is() {
        let mut outbox = Outbox::default();
        outbox.push(entry(1, 0));
        outbox.push(entry(2, 1));
        take(&mut outbox);
        let now = Instant::now();
        assert!(matches!(outbox.answered(Err(refused(Reason::ShardClosed)), now, 0.5), Ok(None)));
        let settled = outbox.answered(Err(refused(Reason::NotFound)), now, 0.5);
        assert!(matches!(&settled, Ok(Some((1, Err(error)))) if error.is(Reason::NotFound)), "{settled:?}");
        outbox.come_due(now + SOON);
        assert_eq!(take(&mut outbox), [0]);
        assert!(outbox.answered(Ok(accepted()), now, 0.5).is_ok() && outbox.is_empty());
        assert!(outbox.answered(Ok(accepted()), now, 0.5).is_err(), "nothing was sent");
    }

    #[test]
    fn messages_are_bounded_but_never_empty() {
        let mut outbox = Outbox::default();
        (0..5).for_each(|n| outbox.push(entry(n as i64, n)));
        let bytes = entry(0, 0).write.bytes_at_most();
        assert_eq!(outbox.take_ready(100, 1, backoff).len(), 1);
        assert_eq!(outbox.take_ready(100, 2 * bytes, backoff).len(), 2);
        assert_eq!(outbox.take_ready(1, 100 * bytes, backoff).len(), 1);
    }

    #[test]
    fn all_fail_when_no_connection_can_be_made_and_say_whether_they_may_have_taken_effect() {
        let mut outbox = Outbox::default();
        outbox.push(entry(1, 0));
        take(&mut outbox);
        outbox.ended(&ClientError::Transport("reset".into()), Instant::now(), || 0.5);
        outbox.push(entry(1, 1));
        outbox.push(entry(2, 2));
        let failed = outbox.fail_all(&ClientError::Connect("refused".into()));
        assert!(outbox.is_empty() && !outbox.has_ready() && outbox.next_due().is_none());
        let unknown: Vec<_> =
            failed.iter().map(|(at, r)| (*at, !r.as_ref().is_err_and(ClientError::is_refusal))).collect();
        assert_eq!(unknown, [(0, true), (1, false), (2, false)]);
    }

    proptest! {
        #[test]
        fn each_write_is_settled_once_and_in_the_order_of_its_key(
            keys in prop::collection::vec(0_i64..4, 1..40),
            steps in prop::collection::vec((0_u8..5, 1_usize..4), 0..300),
        ) {
            let mut outbox = Outbox::default();
            let (mut pushed, mut settled, mut now) = (0_usize, Vec::<u64>::new(), Instant::now());
            let mut step = |what: u8, n: usize| {
                match what {
                    0 if pushed < keys.len() => {
                        outbox.push(entry(keys[pushed], pushed as u64));
                        pushed += 1;
                    }
                    1 => {
                        let taken: Vec<u64> = outbox.take_ready(n, 1 << 20, backoff).iter().map(|e| e.answer).collect();
                        for at in taken {
                            // All that came before it of its key has its result.
                            let earlier = (0..at).filter(|o| keys[*o as usize] == keys[at as usize]);
                            assert!(earlier.into_iter().all(|o| settled.contains(&o)));
                        }
                    }
                    2 if outbox.has_sent() => {
                        let result = if n == 1 { Err(refused(Reason::Overloaded)) } else { Ok(accepted()) };
                        if let Ok(Some((at, _))) = outbox.answered(result, now, 0.5) {
                            assert!(!settled.contains(&at));
                            settled.push(at);
                        }
                    }
                    3 => assert!(outbox.ended(&ClientError::Transport("x".into()), now, || 0.5).is_empty()),
                    _ => {
                        now += SOON;
                        outbox.come_due(now);
                    }
                }
                settled.len()
            };
            for (what, n) in steps {
                step(what, n);
            }
            let mut rounds = 0;
            while step(4, 1) < keys.len() {
                for what in [0, 1, 2, 2] {
                    step(what, 3);
                }
                rounds += 1;
                assert!(rounds < 1000, "it stands still");
            }
            prop_assert!(outbox.is_empty());
        }
    }
}
