//! One client: reads and writes at random, and what comes back.

use std::{sync::Arc, time::Duration};

use history::{Action, BatchPlace, Condition, Level, Operation, Outcome, Part, Refusal, Seen, Span, Stamp};
use ingest_svc::Etag;
use rand::{RngExt as _, rngs::SmallRng, seq::IndexedRandom as _};
use shock_absorber_client::{
    Accepted, AckLevel, Acknowledge, Client, ClientError, Precondition, Reason, TableRef, Write,
};
use tokio::sync::watch;

use crate::{
    places::{Place, changes, image_of_client},
    recorder::Recorder,
};

/// A read without an answer by then, or a write, has an unknown outcome.
pub(crate) const PATIENCE: Duration = Duration::from_millis(2_500);
/// How long a writer waits, now and then, until the database has what it wrote.
const WAIT_APPLIED: Duration = Duration::from_millis(500);
/// Attempts under one request id.
const ATTEMPTS: u32 = 3;

pub(crate) struct Worker {
    pub(crate) number: u32,
    /// One per ingest replica.
    pub(crate) replicas: Vec<Client>,
    pub(crate) places: Arc<[Place]>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) rng: SmallRng,
    /// Whether writes of unknown outcome are sent again, under the same request id.
    pub(crate) repeats: bool,
}

/// What is known of a record from an earlier answer.
type Known = std::collections::HashMap<Place, Stamp>;

impl Worker {
    /// Works until it is told to stop.
    pub(crate) async fn run(mut self, stop: watch::Receiver<bool>) {
        let mut known = Known::new();
        while !*stop.borrow() {
            let outcome = match self.rng.random_range(0..100) {
                0..30 => self.read(&mut known).await,
                30..37 => self.batch(&mut known).await,
                _ => self.write(&mut known).await,
            };
            // Whoever was refused for want of a store gains nothing from coming back at once.
            let most = if outcome == Outcome::Refused(Refusal::Other) { 100 } else { 10 };
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..most))).await;
        }
    }

    fn place(&mut self) -> Place {
        // The first are hot: half of everything goes to a handful of keys.
        let hot = self.rng.random_bool(0.5);
        let among = if hot { 8.min(self.places.len()) } else { self.places.len() };
        self.places[self.rng.random_range(0..among)]
    }

    fn replica(&mut self) -> Client {
        self.replicas.choose(&mut self.rng).unwrap_or(&self.replicas[0]).clone()
    }

    async fn read(&mut self, known: &mut Known) -> Outcome {
        let place = self.place();
        let client = self.replica();
        let (outcome, span) = read(&self.recorder, &client, place).await;
        if let Outcome::Read(Some(Seen { version, epoch: Some(epoch), .. })) = outcome {
            known.insert(place, Stamp { version, epoch });
        }
        self.record(place, Action::Read, span, None, outcome);
        outcome
    }

    async fn write(&mut self, known: &mut Known) -> Outcome {
        let place = self.place();
        let action = self.action(place, known);
        let acknowledge = self.acknowledge();
        let from = self.recorder.now();
        let mut message = message(place, action);
        let mut attempts = 1;
        if self.repeats {
            attempts = if self.rng.random_bool(0.8) { ATTEMPTS } else { 1 };
            message = message.request_id(format!("w{}-{}", self.number, self.recorder.unique()));
        }
        let mut outcome = Outcome::Unknown;
        let mut token = None;
        for attempt in 1..=attempts {
            let answer = self.replica().acknowledging(acknowledge).write(&message).await;
            token = answer.as_ref().ok().map(|accepted| accepted.token.clone());
            let answer = outcome_of(answer);
            // Once nobody knows, a refusal settles nothing: the first attempt may still take effect.
            let settles = !matches!(answer, Outcome::Refused(_)) || attempt == 1;
            if settles {
                outcome = answer;
            }
            if outcome != Outcome::Unknown {
                break;
            }
        }
        self.settle(place, action, from, None, outcome, known);
        let queued = matches!(outcome, Outcome::Acked { level, .. } if level >= Level::Queued);
        if self.repeats && queued && action.value().is_some() && self.rng.random_bool(0.1) {
            // As a client whose answer was lost on the way.
            let from = self.recorder.now();
            let answer = self.replica().acknowledging(acknowledge).write(&message).await;
            self.record(place, action, Span::new(from, self.recorder.now()), None, outcome_of(answer));
        }
        if let (Some(token), Outcome::Acked { stamp, .. }, Some(_)) = (token, outcome, action.value())
            && self.rng.random_bool(0.1)
        {
            let from = self.recorder.now();
            let applied = self.replica().wait_applied(&[token], WAIT_APPLIED).await;
            if matches!(applied, Ok(true)) {
                // As if the write had been acknowledged once more, and better.
                let outcome = Outcome::Acked { level: Level::Applied, stamp };
                self.record(place, action, Span::new(from, self.recorder.now()), None, outcome);
            }
        }
        outcome
    }

    async fn batch(&mut self, known: &mut Known) -> Outcome {
        let number = self.rng.random_range(2..6);
        let first = self.place();
        let items: Vec<(Place, Action)> = (0..number)
            .map(|_| {
                let place = if self.rng.random_bool(0.5) { first } else { self.place() };
                (place, self.action(place, known))
            })
            .collect();
        let mut messages: Vec<Write> = items.iter().map(|&(place, action)| message(place, action)).collect();
        if self.repeats {
            for message in &mut messages {
                let id = format!("b{}-{}", self.number, self.recorder.unique());
                *message = message.clone().request_id(id);
            }
        }
        let batch = self.recorder.unique();
        let from = self.recorder.now();
        let acknowledge = self.acknowledge();
        let results = self.replica().acknowledging(acknowledge).batch_write(&messages).await;
        let mut last = Outcome::Unknown;
        for (index, ((place, action), result)) in (0..).zip(items.into_iter().zip(results)) {
            last = outcome_of(result);
            self.settle(place, action, from, Some(BatchPlace { batch, index }), last, known);
        }
        last
    }

    fn settle(
        &self,
        place: Place,
        action: Action,
        from: u64,
        batch: Option<BatchPlace>,
        outcome: Outcome,
        known: &mut Known,
    ) {
        if let Outcome::Acked { stamp, .. } = outcome {
            known.insert(place, stamp);
        }
        self.record(place, action, Span::new(from, self.recorder.now()), batch, outcome);
    }

    fn record(&self, place: Place, action: Action, span: Span, batch: Option<BatchPlace>, outcome: Outcome) {
        let key = place.to_string();
        self.recorder.operation(Operation { client: self.number, key, action, span, batch, outcome });
    }

    fn action(&mut self, place: Place, known: &Known) -> Action {
        let value = self.recorder.unique();
        let part = if self.rng.random() { Part::Left } else { Part::Right };
        let condition = match (self.rng.random_range(0..100), known.get(&place)) {
            (0..25, Some(stamp)) => Condition::At(*stamp),
            (25..30, _) => Condition::Exists(true),
            _ => Condition::None,
        };
        match self.rng.random_range(0..100) {
            0..25 => Action::Create { value },
            25..50 => Action::Put { value, condition },
            50..78 => Action::Update { value, part, condition },
            _ => Action::Delete { condition },
        }
    }

    fn acknowledge(&mut self) -> Acknowledge {
        match self.rng.random_range(0..100) {
            0..25 => Acknowledge::required(AckLevel::Logged),
            25..75 => Acknowledge::required(AckLevel::Queued),
            75..85 => Acknowledge::required(AckLevel::Logged).preferring(AckLevel::Applied, Duration::from_millis(100)),
            _ => Acknowledge::required(AckLevel::Applied).preferring(AckLevel::Applied, Duration::from_secs(1)),
        }
    }
}

fn message(place: Place, action: Action) -> Write {
    let table = TableRef::from(place.table.name());
    let write = match action {
        Action::Create { value } => Write::create(table, place.row(value)),
        Action::Put { value, .. } => Write::put(table, place.row(value)),
        Action::Update { value, part, .. } => Write::update(table, place.key(), changes(value, part)),
        Action::Delete { .. } | Action::Read => Write::delete(table, place.key()),
    };
    let condition = match action {
        Action::Put { condition, .. } | Action::Update { condition, .. } | Action::Delete { condition } => condition,
        Action::Create { .. } | Action::Read => Condition::None,
    };
    match condition {
        Condition::None => write,
        Condition::Exists(exists) => write.only_if(Precondition::Exists(exists)),
        Condition::At(stamp) => write.only_if(Precondition::Etag(etag(stamp))),
    }
}

fn etag(stamp: Stamp) -> String {
    let version = model::Version::new(stamp.version).unwrap_or(model::Version::MAX);
    Etag { version, epoch: model::Epoch(stamp.epoch) }.to_string()
}

fn stamp(etag: &str) -> Option<Stamp> {
    let Etag { version, epoch } = etag.parse().ok()?;
    Some(Stamp { version: version.get(), epoch: epoch.0 })
}

/// One read, and when it was.
pub(crate) async fn read(recorder: &Recorder, client: &Client, place: Place) -> (Outcome, Span) {
    let from = recorder.now();
    let answer = client.get(place.table.name(), place.key()).await;
    let span = Span::new(from, recorder.now());
    let outcome = match answer {
        Ok(found) => match (stamp(&found.etag), image_of_client(&found.row)) {
            (Some(Stamp { version, epoch }), Ok(image)) => {
                Outcome::Read(Some(Seen { version, epoch: Some(epoch), image }))
            }
            _ => Outcome::Unknown,
        },
        Err(error) if error.is(Reason::NotFound) => Outcome::Read(None),
        Err(_) => Outcome::Refused(Refusal::Other),
    };
    (outcome, span)
}

fn outcome_of(answer: Result<Accepted, ClientError>) -> Outcome {
    match answer {
        Ok(accepted) => {
            let level = match accepted.reached {
                Some(AckLevel::Applied) => Level::Applied,
                Some(AckLevel::Queued) => Level::Queued,
                Some(AckLevel::Logged) => Level::Logged,
                None => return Outcome::Unknown,
            };
            stamp(&accepted.etag).map_or(Outcome::Unknown, |stamp| Outcome::Acked { level, stamp })
        }
        Err(error) if !error.is_refusal() => Outcome::Unknown,
        Err(error) if error.is(Reason::AlreadyExists) => Outcome::Refused(Refusal::Exists),
        Err(error) if error.is(Reason::NotFound) => Outcome::Refused(Refusal::Absent),
        Err(error) if error.is(Reason::EtagMismatch) => Outcome::Refused(Refusal::Changed),
        Err(_) => Outcome::Refused(Refusal::Other),
    }
}
