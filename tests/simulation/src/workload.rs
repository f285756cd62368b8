//! What clients do, and what they learn.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use history::{Action, BatchPlace, Condition, Image, Level, Operation, Outcome, Part, Refusal, Seen, Span, Stamp};
use ingest_svc::{
    Etag, Token,
    accept::{Accepted, AckLevel, Acknowledge, Change, Require, WriteError, WriteRequest},
    applied::WaitError,
    find::{FindError, Query},
    read::{Consistency, Found, Get, ReadError},
};
use model::{Epoch, RequestId, Row, Value, Version};
use tokio::time::{sleep, timeout};

use crate::{
    nature::lock,
    replicas::Ingest,
    world::{Record, World, columns, whole},
};

/// A client gives an attempt up after that.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Attempts of a write that names a request.
const ATTEMPTS: u64 = 5;
/// Between two of them, at most.
const PAUSE: Duration = Duration::from_millis(150);
/// Whatever is done by then.
const ENOUGH: Duration = Duration::from_secs(20);
/// Who was sent away comes again after so long, at most.
const AFTER_REFUSAL: Duration = Duration::from_millis(200);
/// Operations in vain for each that is to be done, at most.
const IN_VAIN: u64 = 4;
/// Records of a batch, at most.
const BATCH: u64 = 3;
/// Bytes of the answer to a batch of reads: of all of it now and then.
const ROOM: usize = 4096;

/// A client: one operation after the other.
pub(crate) struct Client {
    pub(crate) number: u32,
    pub(crate) world: Arc<World>,
    /// The etags that it has seen last, by the record's place.
    etags: BTreeMap<usize, Stamp>,
    /// A store was away, or a shard closed: not now.
    was_sent_away: bool,
}

/// What there is to do for all clients together.
pub(crate) struct Work {
    operations: AtomicU64,
    in_vain: AtomicU64,
}

impl Work {
    pub(crate) fn new(operations: u64) -> Arc<Self> {
        Arc::new(Self { operations: operations.into(), in_vain: (operations * IN_VAIN).into() })
    }

    /// Takes an operation; one that was in vain is done over, but not for ever.
    fn take(&self, the_last_was_in_vain: bool) -> bool {
        let from = if the_last_was_in_vain { &self.in_vain } else { &self.operations };
        from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// A write that is being attempted.
struct Attempted {
    at: usize,
    action: Action,
    request: WriteRequest,
    outcome: Option<Outcome>,
    /// By which the client can wait until the database has it.
    token: Option<Token>,
    attempts: u32,
}

impl Attempted {
    /// A repetition is answered in the epoch in which it is asked, but the write was done in that of its condition.
    fn as_first_done(&self, outcome: Outcome) -> Outcome {
        match (outcome, self.condition()) {
            (Outcome::Acked { level, stamp }, Some(Condition::At(wanted)))
                if self.attempts > 1 && wanted.epoch < stamp.epoch =>
            {
                Outcome::Acked { level, stamp: Stamp { epoch: wanted.epoch, ..stamp } }
            }
            _ => outcome,
        }
    }

    fn condition(&self) -> Option<Condition> {
        match self.action {
            Action::Put { condition, .. } | Action::Update { condition, .. } | Action::Delete { condition } => {
                Some(condition)
            }
            Action::Create { .. } | Action::Read => None,
        }
    }
}

impl Client {
    pub(crate) fn new(number: u32, world: Arc<World>) -> Self {
        Self { number, world, etags: BTreeMap::new(), was_sent_away: false }
    }

    /// Works until all clients together have done enough, or asked in vain too often.
    pub(crate) async fn run(mut self, work: Arc<Work>) {
        loop {
            let pause = if self.was_sent_away { AFTER_REFUSAL } else { self.world.nature.climate().think };
            sleep(self.world.nature.up_to(pause)).await;
            if self.world.nature.now() > ENOUGH || !work.take(std::mem::take(&mut self.was_sent_away)) {
                return;
            }
            match self.world.nature.pick(0..100) {
                0..18 => self.read(1).await,
                18..22 => self.find().await,
                22..28 => {
                    let count = self.world.nature.pick(2..BATCH + 2);
                    self.read(count).await;
                }
                28..30 => self.evict().await,
                30..92 => self.write(1).await,
                _ => {
                    let count = self.world.nature.pick(2..BATCH + 1);
                    self.write(count).await;
                }
            }
        }
    }

    /// A replica that takes requests.
    async fn replica(&self) -> Arc<Ingest> {
        loop {
            let ready: Vec<_> = self.world.living_ingests().into_iter().filter(|ingest| ingest.is_ready()).collect();
            if let Some(one) = self.world.nature.one_of(&ready) {
                return one.clone();
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Reads some records in one call; each is an operation of its own.
    async fn read(&mut self, count: u64) {
        let places: Vec<usize> = (0..count).map(|_| self.world.any_record()).collect();
        let get = |at: &usize| {
            let record = &self.world.records[*at];
            let table = self.world.tables[record.table].name.clone();
            Get { table, key: World::key_row(record), columns: Vec::new(), consistency: Consistency::Newest }
        };
        let gets: Vec<Get> = places.iter().map(get).collect();
        let replica = self.replica().await;
        let from = self.world.tick();
        let reader = replica.reader();
        let answers = tokio::select! {
            biased;
            () = replica.process.died() => None,
            answers = timeout(PATIENCE, reader.read_many(gets, ROOM)) => answers.ok(),
        };
        let mut answers = answers.unwrap_or_default().into_iter();
        for at in places {
            if let Some(outcome) = self.outcome_of_read(answers.next()) {
                if let Outcome::Read(Some(Seen { version, epoch: Some(epoch), .. })) = outcome {
                    self.etags.insert(at, Stamp { version, epoch });
                }
                self.record(at, Action::Read, from, None, outcome);
            }
        }
    }

    /// Finds a record by its value, which no other write has, between two reads of it. What is found is a read. If the record
    /// is the same before and afterwards, it must have been found.
    async fn find(&mut self) {
        let at = self.world.any_record();
        let Some(before) = self.read_one(at).await else { return };
        let (from, found) = (self.world.tick(), self.find_by(at, before.image.value).await);
        let Some(found) = found else { return };
        let is_missing = found.is_empty();
        for found in found {
            if let Some(outcome) = self.outcome_of_read(Some(Ok(found))) {
                self.record(at, Action::Read, from, None, outcome);
            }
        }
        let after = self.read_one(at).await;
        if is_missing && after == Some(before) {
            self.world
                .complain(format!("{} was {before} all the while, and was not found", self.world.records[at].name));
        }
    }

    /// The row of a record, if it has one and can be read.
    async fn read_one(&mut self, at: usize) -> Option<Seen> {
        let record = &self.world.records[at];
        let table = self.world.tables[record.table].name.clone();
        let get = Get { table, key: World::key_row(record), columns: Vec::new(), consistency: Consistency::Newest };
        let replica = self.replica().await;
        let from = self.world.tick();
        let reader = replica.reader();
        let answer = tokio::select! {
            biased;
            () = replica.process.died() => None,
            answers = timeout(PATIENCE, reader.read_many(vec![get], ROOM)) => answers.ok().and_then(|mut it| it.pop()),
        };
        let outcome = self.outcome_of_read(answer)?;
        self.record(at, Action::Read, from, None, outcome);
        if let Outcome::Read(seen) = outcome { seen } else { None }
    }

    /// What is found by a value, on all pages; none if one could not be had.
    async fn find_by(&mut self, at: usize, value: u64) -> Option<Vec<Found>> {
        let record = &self.world.records[at];
        let mut query = Query {
            table: self.world.tables[record.table].name.clone(),
            field: "value".to_owned(),
            value: Value::Int64(value as i64),
            limit: 2,
            page_token: String::new(),
            columns: Vec::new(),
        };
        let mut all = Vec::new();
        loop {
            let replica = self.replica().await;
            let finder = replica.finder();
            let answer = tokio::select! {
                biased;
                () = replica.process.died() => return None,
                answer = timeout(PATIENCE, finder.find(query.clone())) => answer.ok()?,
            };
            match answer {
                Ok(page) => {
                    for found in &page.records {
                        if found.row.get("id") != World::key_row(record).get("id") {
                            self.world.complain(format!("another record was found by {value}: {found:?}"));
                            return None;
                        }
                    }
                    all.extend(page.records);
                    if page.next_page_token.is_empty() {
                        return Some(all);
                    }
                    query.page_token = page.next_page_token;
                }
                Err(FindError::Store(_) | FindError::IndexNotReady(_)) => {
                    self.was_sent_away = true;
                    return None;
                }
                Err(error) => {
                    self.world.complain(format!("a find was refused that is right: {error}"));
                    return None;
                }
            }
        }
    }

    /// What a read came to; none if it can't be.
    fn outcome_of_read(&self, answer: Option<Result<Found, ReadError>>) -> Option<Outcome> {
        if let Some(Err(error)) = &answer {
            self.world.nature.note(|| format!("CLIENT {} is told: {error}", self.number));
        }
        match answer {
            Some(Ok(found)) => {
                let seen = seen(&found);
                if seen.is_none() {
                    self.world.complain(format!("a row without its columns was read: {found:?}"));
                }
                seen.map(|seen| Outcome::Read(Some(seen)))
            }
            Some(Err(ReadError::NotFound(_))) => Some(Outcome::Read(None)),
            Some(Err(ReadError::Store(_) | ReadError::NoRoom)) | None => Some(Outcome::Refused(Refusal::Other)),
            Some(Err(error)) => {
                self.world.complain(format!("a read was refused that is right: {error}"));
                None
            }
        }
    }

    /// Makes a record be forgotten. Nobody may see that, but for a database that is asked once more.
    async fn evict(&mut self) {
        let record = &self.world.records[self.world.any_record()];
        let (table, key) = (&self.world.tables[record.table].name, World::key_row(record));
        let replica = self.replica().await;
        let reader = replica.reader();
        let answer = tokio::select! {
            biased;
            () = replica.process.died() => return,
            answer = timeout(PATIENCE, reader.evict(table, std::slice::from_ref(&key))) => answer,
        };
        self.world.nature.note(|| format!("CLIENT {} has evicted {}: {answer:?}", self.number, record.name));
    }

    fn record(&mut self, at: usize, action: Action, from: u64, batch: Option<BatchPlace>, outcome: Outcome) {
        let operation = Operation {
            client: self.number,
            key: self.world.records[at].name.clone(),
            action,
            span: Span::new(from, self.world.tick()),
            batch,
            outcome,
        };
        self.was_sent_away |= operation.outcome == Outcome::Refused(Refusal::Other);
        self.world.nature.note(|| format!("CLIENT {}: {operation}", operation.key));
        let mut history = lock(&self.world.history);
        history.unwritable.extend(action.value().filter(|value| self.world.is_poison(*value)));
        history.operations.push(operation);
    }

    fn any_condition(&self, at: usize) -> Condition {
        match (self.world.nature.pick(0..10), self.etags.get(&at)) {
            (0..3, Some(stamp)) => Condition::At(*stamp),
            (3, _) => Condition::Exists(self.world.nature.happens(0.5)),
            _ => Condition::None,
        }
    }

    fn any_write(&self) -> Attempted {
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

    fn any_acknowledgement(&self) -> Acknowledge {
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

    async fn write(&mut self, count: u64) {
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
            let replica = self.replica().await;
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
        let replica = self.replica().await;
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
        let replica = self.replica().await;
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
    fn note(&self, write: &mut Attempted, outcome: Outcome) {
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

    fn outcome(&self, write: &Attempted, answer: Result<Accepted, WriteError>) -> Outcome {
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

fn change(record: &Record, action: Action) -> Change {
    let key = World::key_row(record);
    let all = |value| key.clone().merged_with(whole(value));
    match action {
        Action::Create { value } => Change::Create { row: all(value) },
        Action::Put { value, condition } => Change::Put { row: all(value), precondition: require(condition) },
        Action::Update { value, part, condition } => {
            let part = match part {
                Part::Left => "left_part",
                Part::Right => "right_part",
            };
            let changes = columns(&[("value", value), (part, value)]);
            Change::Update { key, changes, precondition: require(condition) }
        }
        Action::Delete { condition } => Change::Delete { key, precondition: require(condition) },
        Action::Read => unreachable!("a read is no change"),
    }
}

fn require(condition: Condition) -> Option<Require> {
    match condition {
        Condition::None => None,
        Condition::Exists(exists) => Some(Require::Exists(exists)),
        Condition::At(Stamp { version, epoch }) => {
            let version = Version::new(version)?;
            Some(Require::Etag(Etag { version, epoch: Epoch(epoch) }))
        }
    }
}

/// The row of an answer.
pub(crate) fn image(row: &Row) -> Option<Image> {
    let column = |name: &str| match row.get(name) {
        Some(Value::Int64(value)) => u64::try_from(*value).ok(),
        _ => None,
    };
    Some(Image { value: column("value")?, left: column("left_part")?, right: column("right_part")? })
}

fn seen(found: &Found) -> Option<Seen> {
    let Etag { version, epoch } = found.etag?;
    Some(Seen { version: version.get(), epoch: Some(epoch.0), image: image(&found.row)? })
}
