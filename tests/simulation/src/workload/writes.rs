//! Writes, alone and in batches.

use std::time::Duration;

use history::{Action, BatchPlace, Condition, Level, Outcome, Part, Refusal, Stamp};
use ingest_svc::{
    Token,
    accept::{Accepted, AckLevel, Acknowledge, WriteError, WriteRequest},
    applied::WaitError,
};
use model::RequestId;
use tokio::time::{sleep, timeout};

use super::{
    Client, PATIENCE,
    attempt::{Attempted, change},
};

/// Attempts of a write that names a request.
pub(super) const ATTEMPTS: u64 = 5;
/// Between two of them, at most.
pub(super) const PAUSE: Duration = Duration::from_millis(150);

impl Client {
    fn any_condition(&self, at: usize) -> Condition {
        match (self.world.nature.pick(0..10), self.etags.get(&at)) {
            (0..3, Some(stamp)) => Condition::At(*stamp),
            (3, _) => Condition::Exists(self.world.nature.happens(0.5)),
            _ => Condition::None,
        }
    }

    pub(super) fn any_write(&self) -> Attempted {
        let nature = &self.world.nature;
        let value = self.world.number();
        if nature.happens(0.2)
            && let Some(at) = self.world.fresh_record()
        {
            return self.attempted(at, Action::Create { value }, value);
        }
        let at = self.world.any_record();
        let is_fresh = self.world.tables[self.world.records[at].table].has_fresh_keys();
        let action = match nature.pick(0..10) {
            // Nobody makes the same key up again.
            0..2 if is_fresh => Action::Put { value, condition: self.any_condition(at) },
            0..2 => Action::Create { value },
            2..5 => Action::Put { value, condition: self.any_condition(at) },
            5..8 => {
                let part = if nature.happens(0.5) { Part::Left } else { Part::Right };
                let condition = match self.any_condition(at) {
                    Condition::Exists(_) => Condition::None,
                    other => other,
                };
                Action::Update { value, part, condition }
            }
            _ => Action::Delete {
                condition: match self.any_condition(at) {
                    Condition::Exists(false) => Condition::Exists(true),
                    other => other,
                },
            },
        };
        self.attempted(at, action, value)
    }

    fn attempted(&self, at: usize, action: Action, value: u64) -> Attempted {
        let record = &self.world.records[at];
        let named = self.world.nature.happens(0.6);
        let request_id = named.then(|| RequestId::new(&format!("request-{value}")).ok()).flatten();
        let table = self.world.tables[record.table].name.clone();
        let request = WriteRequest { table, change: change(record, action), request_id };
        Attempted { at, action, request, outcome: None, token: None, attempts: 0 }
    }

    pub(super) fn any_acknowledgement(&self) -> Acknowledge {
        let nature = &self.world.nature;
        let wait = nature.up_to(Duration::from_millis(300));
        match nature.pick(0..20) {
            0..3 => Acknowledge::required(AckLevel::Logged),
            3 => Acknowledge { required: Some(AckLevel::Logged), preferred: Some(AckLevel::Queued), wait },
            4..6 => Acknowledge { required: Some(AckLevel::Applied), preferred: None, wait },
            6..8 => Acknowledge { required: Some(AckLevel::Queued), preferred: Some(AckLevel::Applied), wait },
            _ => Acknowledge::default(),
        }
    }

    pub(super) async fn write(&mut self, count: u64) {
        let mut writes: Vec<Attempted> = (0..count).map(|_| self.any_write()).collect();
        let ack = self.any_acknowledgement();
        let from = self.world.tick();
        for attempt in 0..ATTEMPTS {
            let open: Vec<usize> =
                (0..writes.len()).filter(|&n| attempt == 0 || self.tries_again(&writes[n])).collect();
            if open.is_empty() {
                break;
            }
            if attempt > 0 {
                sleep(self.world.nature.up_to(PAUSE)).await;
            }
            let replica = self.world.ready_replica().await;
            let requests = open.iter().map(|&n| writes[n].request.clone()).collect();
            let writer = replica.writer();
            let answers = tokio::select! {
                biased;
                () = replica.process.died() => None,
                answers = timeout(PATIENCE, writer.write_batch(requests, ack)) => answers.ok(),
            };
            let mut answers = answers.unwrap_or_default().into_iter();
            for n in open {
                let outcome = match answers.next() {
                    Some(answer) => {
                        writes[n].token = answer.as_ref().ok().map(|accepted| accepted.token.clone());
                        self.outcome(&writes[n], answer)
                    }
                    None => Outcome::Unknown,
                };
                self.note(&mut writes[n], outcome);
            }
        }
        let named = match writes.as_slice() {
            [Attempted { at, request, outcome: Some(Outcome::Acked { level, .. }), .. }] if *level >= Level::Queued => {
                request.request_id.clone().map(|id| (*at, id))
            }
            _ => None,
        };
        // A token of what is parked, or was superseded by it, says nothing yet.
        if self.world.nature.happens(0.15) && !self.world.nature.climate().poison {
            self.wait_for_the_database(&mut writes).await;
        }
        let batch = self.world.number();
        let at_once = count > 1 && writes.iter().all(|write| write.attempts == 1);
        for (index, write) in (0..).zip(writes) {
            let place = at_once.then_some(BatchPlace { batch, index });
            let outcome = write.outcome.unwrap_or(Outcome::Unknown);
            if let Outcome::Acked { stamp, .. } = outcome {
                self.etags.insert(write.at, stamp);
                self.world.is_made_up(write.at);
            }
            self.record(write.at, write.action, from, place, write.as_first_done(outcome));
        }
        if let Some((at, id)) = named
            && self.world.nature.happens(0.05)
        {
            self.reuse(at, id).await;
        }
    }

    /// If the wait succeeds, the writes were applied, whatever they were acknowledged as.
    async fn wait_for_the_database(&mut self, writes: &mut [Attempted]) {
        let is_acked = |write: &&mut Attempted| matches!(write.outcome, Some(Outcome::Acked { .. }));
        let mut acked: Vec<&mut Attempted> = writes.iter_mut().filter(is_acked).collect();
        let tokens: Vec<Token> = acked.iter().filter_map(|write| write.token.clone()).collect();
        if tokens.len() < acked.len() || tokens.is_empty() {
            return;
        }
        let replica = self.world.ready_replica().await;
        let (waiter, wait) = (replica.waiter(), self.world.nature.up_to(PATIENCE));
        let waited = tokio::select! {
            biased;
            () = replica.process.died() => return,
            waited = timeout(wait + PATIENCE, waiter.wait(&tokens, wait)) => waited,
        };
        self.world.nature.note(|| format!("CLIENT {} has waited for the database: {waited:?}", self.number));
        match waited {
            Ok(Ok(true)) => {
                for write in &mut acked {
                    if let Some(Outcome::Acked { level, .. }) = &mut write.outcome {
                        *level = Level::Applied;
                    }
                }
            }
            Ok(Err(WaitError::UnknownToken { at })) => self.world.complain(format!("{} is not known", tokens[at])),
            Ok(
                Ok(false) | Err(WaitError::PerhapsLost { .. } | WaitError::DeadLettered { .. } | WaitError::Store(_)),
            )
            | Err(_) => {}
        }
    }

    /// Another write under the name of one that was acknowledged: it has no effect, whatever is answered.
    async fn reuse(&mut self, at: usize, id: RequestId) {
        let value = self.world.number();
        let mut write = self.attempted(at, Action::Put { value, condition: Condition::None }, value);
        write.request.request_id = Some(id);
        let replica = self.world.ready_replica().await;
        let (from, writer) = (self.world.tick(), replica.writer());
        let answer = tokio::select! {
            biased;
            () = replica.process.died() => None,
            answer = timeout(PATIENCE, writer.write(write.request.clone(), Acknowledge::default())) => answer.ok(),
        };
        if let Some(Ok(accepted)) = answer {
            self.world.complain(format!("{:?} was accepted under the name of another: {accepted:?}", write.request));
        }
        self.record(write.at, write.action, from, None, Outcome::Refused(Refusal::Other));
    }

    /// Whether a client asks once more: if it does not know, or the answer got lost on its way.
    fn tries_again(&self, write: &Attempted) -> bool {
        let nature = &self.world.nature;
        write.request.request_id.is_some()
            && match write.outcome {
                Some(Outcome::Unknown) | None => nature.happens(0.9),
                Some(Outcome::Refused(Refusal::Other)) => nature.happens(0.5),
                Some(Outcome::Acked { .. }) => nature.happens(0.1),
                Some(_) => false,
            }
    }

    /// Several attempts are one operation.
    pub(super) fn note(&self, write: &mut Attempted, outcome: Outcome) {
        write.attempts += 1;
        write.outcome = Some(match (write.outcome, outcome) {
            (None, outcome) => outcome,
            (Some(Outcome::Acked { level, stamp }), Outcome::Acked { level: again, stamp: other }) => {
                if stamp.version != other.version && level >= Level::Queued {
                    let what = format!("{:?} took effect twice, at {stamp:?} and {other:?}", write.request);
                    self.world.complain(what);
                }
                // What was in the hot store only may have been lost with its request, and done again since.
                if again > level || stamp.version != other.version { outcome } else { Outcome::Acked { level, stamp } }
            }
            (Some(Outcome::Acked { level: Level::Logged, .. }), Outcome::Unknown) => Outcome::Unknown,
            (Some(Outcome::Acked { level, stamp }), _) => Outcome::Acked { level, stamp },
            (Some(_), Outcome::Acked { .. }) => outcome,
            (Some(Outcome::Refused(_)), _) => outcome,
            (Some(_), _) => Outcome::Unknown,
        });
    }

    pub(super) fn outcome(&self, write: &Attempted, answer: Result<Accepted, WriteError>) -> Outcome {
        if let Err(error) = &answer {
            self.world.nature.note(|| format!("CLIENT {} is told: {error}", self.number));
        }
        let refused = match answer {
            Ok(Accepted { reached, etag, .. }) => {
                let level = match reached {
                    AckLevel::Logged => Level::Logged,
                    AckLevel::Queued => Level::Queued,
                    AckLevel::Applied => Level::Applied,
                };
                let stamp = Stamp { version: etag.version.get(), epoch: etag.epoch.0 };
                self.world.heard_of(&self.world.records[write.at], stamp);
                return Outcome::Acked { level, stamp };
            }
            Err(WriteError::OutcomeUnknown(_) | WriteError::LevelNotReached { .. } | WriteError::DeadLettered) => {
                return Outcome::Unknown;
            }
            Err(WriteError::AlreadyExists(_)) => Refusal::Exists,
            Err(WriteError::NotFound(_)) => Refusal::Absent,
            Err(WriteError::Aborted(_)) => Refusal::Changed,
            Err(
                WriteError::Conflict { .. }
                | WriteError::LogDown
                | WriteError::LogQueueFull
                | WriteError::NotBegun(_)
                | WriteError::BacklogFull { .. }
                | WriteError::DrainingDown(_)
                | WriteError::ParkedFull { .. }
                | WriteError::Store(_),
            ) => Refusal::Other,
            Err(error) => {
                self.world.complain(format!("{:?} was refused: {error}", write.request));
                Refusal::Other
            }
        };
        Outcome::Refused(refused)
    }
}
