//! Several writes in one message, and which of them are sent again.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use proto::v1::{self, write_item_result::Outcome};

use crate::{
    Accepted, Client, ClientError, TableRef, Write,
    key_group::{KeyGroup, key_groups},
    retry::Repeat,
};

type ItemResult = Result<Accepted, ClientError>;

/// What one item's outcome means for sending it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It took effect.
    Touched,
    /// It may have taken effect, or may still do so. Nothing before it is sent again, lest that lands behind it. `named`:
    /// it has a request id, so it may be sent again itself, if nothing behind it may have taken effect.
    Unknown { named: bool },
    /// It certainly had no effect; `passing`: sending it again by itself may help.
    Refused { passing: bool },
}

impl Verdict {
    fn of(result: &ItemResult, named: bool) -> Self {
        match result {
            Ok(_) => Self::Touched,
            Err(error) if error.is_refusal() => Self::Refused { passing: Repeat::Write.may_follow(error) },
            Err(error) => Self::Unknown { named: named && Repeat::NamedWrite.may_follow(error) },
        }
    }
}

/// The items to send again, in their order, such that no item lands behind a later one of its group: of each group
/// the end of which nothing took effect, from the first item on that may succeed now. What was refused behind it goes
/// along, since it may have been refused for want of the former (an update behind a create).
fn to_send_again<G: Eq + Hash>(verdicts: &[Verdict], groups: &[G]) -> Vec<usize> {
    #[derive(Default)]
    struct Tail {
        closed: bool,
        /// Positions from the end of the group backwards.
        untouched: Vec<usize>,
        /// How many of them, from the group's end, reach to the first that may succeed now.
        worth: usize,
    }
    let mut tails: HashMap<&G, Tail> = HashMap::new();
    for (at, (verdict, group)) in verdicts.iter().zip(groups).enumerate().rev() {
        let tail = tails.entry(group).or_default();
        match verdict {
            // Its fate is open, and what lies before it must not land behind it; nor it behind another such one.
            Verdict::Unknown { .. } if tail.closed => *tail = Tail { closed: true, ..Tail::default() },
            Verdict::Unknown { named: false } => *tail = Tail { closed: true, ..Tail::default() },
            _ if tail.closed => {}
            Verdict::Unknown { named: true } => {
                tail.untouched.push(at);
                tail.worth = tail.untouched.len();
                tail.closed = true;
            }
            Verdict::Touched => tail.closed = true,
            Verdict::Refused { passing } => {
                tail.untouched.push(at);
                if *passing {
                    tail.worth = tail.untouched.len();
                }
            }
        }
    }
    let mut again: Vec<usize> =
        tails.into_values().flat_map(|tail| tail.untouched.into_iter().take(tail.worth)).collect();
    again.sort_unstable();
    again
}

impl Client {
    /// Several writes in one message, each with a result of its own; not atomic. Writes of the same key take effect
    /// in the order given.
    ///
    /// What failed is sent again by the rules of single writes, as long as no later write of the same key has taken
    /// effect or may have; where that can't be told (another attempt's outcome is unknown), the item fails. A batch
    /// that is larger than the server takes fails as a whole: see [`crate::Batcher`].
    pub async fn batch_write(&self, writes: &[Write]) -> Vec<ItemResult> {
        let mut results: Vec<ItemResult> = Vec::with_capacity(writes.len());
        let mut unsettled = vec![false; writes.len()];
        let mut pending: Vec<usize> = (0..writes.len()).collect();
        let mut backoff = self.backoff_of_writes();
        let ids: Vec<Option<String>> = writes.iter().map(|write| self.id_of(write)).collect();
        while !pending.is_empty() {
            let sent: Vec<(&Write, Option<&str>)> =
                pending.iter().map(|&at| (&writes[at], ids[at].as_deref())).collect();
            let outcomes = self.send_batch(&sent, self.attempt_limit(&backoff)).await;
            if results.is_empty() {
                results = outcomes;
            } else {
                for (&at, outcome) in pending.iter().zip(outcomes) {
                    results[at] = outcome;
                }
            }
            let again = self.find_to_send_again(writes, &ids, &results, &pending).await;
            let asked = again.iter().filter_map(|&at| results[at].as_ref().err()?.retry_after()).max();
            let delay = if again.is_empty() { None } else { backoff.delay(asked, rand::random()) };
            let Some(delay) = delay else { break };
            for &at in &again {
                unsettled[at] |= results[at].as_ref().is_err_and(|error| !error.is_refusal());
            }
            tokio::time::sleep(delay).await;
            pending = again;
        }
        for (result, unsettled) in results.iter_mut().zip(unsettled) {
            if unsettled
                && let Err(error) = result
                && error.is_refusal()
            {
                *error = ClientError::Unsettled(Box::new(error.clone()));
            }
        }
        results
    }

    async fn find_to_send_again(
        &self,
        writes: &[Write],
        ids: &[Option<String>],
        results: &[ItemResult],
        pending: &[usize],
    ) -> Vec<usize> {
        let verdicts: Vec<Verdict> = pending.iter().map(|&at| Verdict::of(&results[at], ids[at].is_some())).collect();
        let worth = |v: &Verdict| matches!(v, Verdict::Refused { passing: true } | Verdict::Unknown { named: true });
        if !verdicts.iter().any(worth) {
            return Vec::new();
        }
        let mut keys: HashMap<TableRef, Arc<[String]>> = HashMap::new();
        if !verdicts.iter().all(|v| matches!(v, Verdict::Refused { .. })) {
            for &at in pending {
                let table = &writes[at].table;
                if !keys.contains_key(table)
                    && let Some(columns) = self.key_columns(table).await
                {
                    keys.insert(table.clone(), columns);
                }
            }
        }
        let sent: Vec<&Write> = pending.iter().map(|&at| &writes[at]).collect();
        let groups: Vec<KeyGroup> = key_groups(&sent, &keys);
        to_send_again(&verdicts, &groups).into_iter().map(|at| pending[at]).collect()
    }

    /// One attempt at some writes.
    async fn send_batch(&self, writes: &[(&Write, Option<&str>)], limit: std::time::Duration) -> Vec<ItemResult> {
        let message = v1::BatchWriteRequest {
            items: writes.iter().map(|(write, id)| write.to_item(*id)).collect(),
            acknowledgement: Some(self.acknowledge().to_proto()),
        };
        let answer =
            self.attempt(limit, message, |mut connection, request| async move {
                connection.records.batch_write(request).await
            })
            .await;
        let all = |error: ClientError| writes.iter().map(|_| Err(error.clone())).collect();
        match answer {
            Err(error) => all(error),
            Ok(answer) if answer.results.len() != writes.len() => all(ClientError::BadAnswer(format!(
                "it has {} results for {} items",
                answer.results.len(),
                writes.len()
            ))),
            Ok(answer) => answer
                .results
                .into_iter()
                .map(|result| match result.outcome {
                    Some(Outcome::Result(result)) => Accepted::from_answer(Some(result)),
                    Some(Outcome::Status(status)) => Err(ClientError::from_item(&status)),
                    None => Err(ClientError::BadAnswer("an item has no outcome".into())),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Verdict::{Refused, Touched, Unknown};

    const PASSING: Verdict = Refused { passing: true };
    const NONE: [usize; 0] = [];
    const FINAL: Verdict = Refused { passing: false };
    const UNKNOWN: Verdict = Unknown { named: false };
    const NAMED: Verdict = Unknown { named: true };

    #[test]
    fn a_refused_write_does_not_land_behind_a_later_one_of_its_key() {
        assert_eq!(to_send_again(&[PASSING, Touched], &["a", "a"]), NONE);
        assert_eq!(to_send_again(&[PASSING, Touched], &["a", "b"]), [0]);
        assert_eq!(to_send_again(&[Touched, PASSING], &["a", "a"]), [1]);
    }

    #[test]
    fn what_was_refused_for_want_of_an_earlier_write_goes_along() {
        // A create met a closed shard, so the update behind it found nothing.
        assert_eq!(to_send_again(&[PASSING, FINAL], &["a", "a"]), [0, 1]);
        assert_eq!(to_send_again(&[FINAL, PASSING], &["a", "a"]), [1]);
        assert_eq!(to_send_again(&[FINAL, FINAL], &["a", "a"]), NONE);
    }

    #[test]
    fn a_write_of_unknown_outcome_keeps_back_all_of_its_key() {
        assert_eq!(to_send_again(&[PASSING, UNKNOWN, PASSING, PASSING], &["a", "a", "a", "b"]), [3]);
    }

    #[test]
    fn a_named_write_of_unknown_outcome_is_sent_again_if_nothing_behind_it_may_have_taken_effect() {
        assert_eq!(to_send_again(&[NAMED], &["a"]), [0]);
        assert_eq!(to_send_again(&[Touched, NAMED, FINAL], &["a", "a", "a"]), [1, 2]);
        assert_eq!(to_send_again(&[PASSING, NAMED], &["a", "a"]), [1], "what was refused would land behind it");
        assert_eq!(to_send_again(&[NAMED, Touched], &["a", "a"]), NONE);
        assert_eq!(to_send_again(&[NAMED, NAMED], &["a", "a"]), NONE, "the second one may have taken effect alone");
        assert_eq!(to_send_again(&[UNKNOWN, NAMED], &["a", "a"]), NONE);
    }

    proptest! {
        #[test]
        fn order_per_key_is_kept(items in prop::collection::vec(
            (prop_oneof![Just(Touched), Just(UNKNOWN), Just(NAMED), Just(PASSING), Just(FINAL)], 0..4_u8), 0..30,
        )) {
            let (verdicts, groups): (Vec<_>, Vec<_>) = items.into_iter().unzip();
            let again = to_send_again(&verdicts, &groups);
            prop_assert!(again.is_sorted());
            for (at, group) in groups.iter().enumerate() {
                let later: Vec<usize> = (at + 1..groups.len()).filter(|&later| groups[later] == *group).collect();
                let unknown = |o: &usize| groups[*o] == *group && matches!(verdicts[*o], Unknown { .. });
                if again.contains(&at) {
                    prop_assert!(!matches!(verdicts[at], Touched | UNKNOWN));
                    // Of all of its key nothing else is open, and it does not land behind what is.
                    prop_assert!((0..groups.len()).filter(unknown).all(|o| verdicts[o] == NAMED && o <= at));
                    prop_assert!((0..groups.len()).filter(unknown).count() <= 1);
                    // Whatever of this key comes later had no effect yet, and is sent behind it.
                    let untouched = |l: &usize| matches!(verdicts[*l], Refused { .. });
                    prop_assert!(later.iter().all(|l| untouched(l) && again.contains(l)));
                } else if matches!(verdicts[at], PASSING | NAMED) {
                    // Left behind only because something later has taken effect, or nobody knows of something else.
                    let touched = later.iter().any(|&l| verdicts[l] == Touched);
                    prop_assert!(touched || (0..groups.len()).any(|o| o != at && unknown(&o)));
                }
            }
            for &at in &again {
                // Nothing is sent again without hope: it, or an earlier one that goes along, may succeed now.
                prop_assert!(again.iter().any(|&e| e <= at && groups[e] == groups[at] && verdicts[e] != FINAL));
            }
        }
    }
}
