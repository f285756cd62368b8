//! Clients that write and read, and what is known of each key.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use history::{
    Action, Condition, Findings, History, Image, Level, Operation, Outcome, Refusal, Sample, Seen, Span, Stamp,
};
use ingest_svc::Etag;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};
use shock_absorber_client::{Accepted, AckLevel, Client, ClientError, Reason, Row, Write};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::stand::{Stand, TABLE};

/// Some ten keys a shard.
pub(super) const KEYS: i64 = 640;
const WRITERS: i64 = 4;
/// Writes of one writer at once, and the pause between two of them: 400 writes a second in all, each key every 1.6 s.
const AT_ONCE: usize = 40;
const PAUSE: Duration = Duration::from_millis(400);
const READ_PAUSE: Duration = Duration::from_millis(20);
/// What is acknowledged so soon after a kill tells how long the takeover took.
const AFTER_KILL_MICROS: u64 = 2_000_000;

/// See the module.
pub(super) struct Load {
    begun: Instant,
    /// Keys of another protocol's turn are others.
    first_id: i64,
    next_value: AtomicU64,
    known: Mutex<Known>,
}

struct Known {
    history: History,
    /// Per key the acknowledged writes that the database has not shown yet: version, and when.
    waiting: Vec<VecDeque<(u64, u64)>>,
    /// What the database showed last of each key.
    shown: Vec<Option<Seen>>,
    /// When a write was acknowledged, and how many microseconds later the database showed it.
    waited: Vec<(u64, u64)>,
    not_acked: usize,
}

/// What came of it all. Times in seconds.
pub(super) struct Verdict {
    pub(super) acked: usize,
    pub(super) not_acked: usize,
    pub(super) findings: Findings,
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) worst: f64,
    /// The longest wait of what was acknowledged just after a kill, as a mean over all kills.
    pub(super) takeover: f64,
}

impl Load {
    pub(super) fn new(protocol: &str) -> Self {
        let keys = usize::try_from(KEYS).unwrap_or_default();
        let known = Known {
            history: History::default(),
            waiting: vec![VecDeque::new(); keys],
            shown: vec![None; keys],
            waited: Vec::new(),
            not_acked: 0,
        };
        let first_id = if protocol == "classic" { KEYS } else { 0 };
        Self { begun: Instant::now(), first_id, next_value: AtomicU64::new(1), known: Mutex::new(known) }
    }

    /// Microseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX - 1)
    }

    /// The number of a key in the table.
    pub(super) fn id(&self, key: i64) -> i64 {
        self.first_id + key
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writers, each with keys of its own, and a reader.
    pub(super) fn start(self: Arc<Self>, stand: &Stand, stop: &watch::Receiver<bool>) -> Vec<JoinHandle<Result<()>>> {
        let mut tasks: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(self.clone().write(writer, stand.client.clone(), stop.clone())))
            .collect();
        tasks.push(tokio::spawn(self.read(stand.client.clone(), stop.clone())));
        tasks
    }

    async fn write(self: Arc<Self>, writer: i64, client: Client, stop: watch::Receiver<bool>) -> Result<()> {
        let mut keys: Vec<i64> = (0..KEYS).filter(|key| key % WRITERS == writer).collect();
        let mut rng = SmallRng::seed_from_u64(writer.cast_unsigned());
        while !*stop.borrow() {
            keys.shuffle(&mut rng);
            for keys in keys.chunks(AT_ONCE) {
                let values: Vec<u64> = keys.iter().map(|_| self.next_value.fetch_add(1, Ordering::Relaxed)).collect();
                let writes: Vec<Write> =
                    keys.iter().zip(&values).map(|(key, value)| Write::put(TABLE, self.row(*key, *value))).collect();
                let from = self.now();
                let answers = client.batch_write(&writes).await;
                let span = Span::new(from, self.now());
                for ((key, value), answer) in keys.iter().zip(values).zip(answers) {
                    self.answered(u32::try_from(writer)?, *key, value, span, answer);
                }
                sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    fn row(&self, key: i64, value: u64) -> Row {
        let value = value.cast_signed();
        Row::new().set("id", self.id(key)).set("value", value).set("lft", value).set("rgt", value)
    }

    fn answered(&self, client: u32, key: i64, value: u64, span: Span, answer: Result<Accepted, ClientError>) {
        let outcome = match answer {
            Ok(accepted) => match (accepted.reached, stamp(&accepted.etag)) {
                (Some(AckLevel::Queued | AckLevel::Applied), Some(stamp)) => {
                    Outcome::Acked { level: Level::Queued, stamp }
                }
                _ => Outcome::Unknown,
            },
            Err(error) if error.is_refusal() => Outcome::Refused(Refusal::Other),
            Err(_) => Outcome::Unknown,
        };
        let mut known = self.known();
        match outcome {
            Outcome::Acked { stamp, .. } => known.waiting[index(key)].push_back((stamp.version, span.to)),
            _ => known.not_acked += 1,
        }
        let action = Action::Put { value, condition: Condition::None };
        known.history.operations.push(Operation { client, key: key.to_string(), action, span, batch: None, outcome });
    }

    async fn read(self: Arc<Self>, client: Client, stop: watch::Receiver<bool>) -> Result<()> {
        let mut rng = SmallRng::seed_from_u64(u64::MAX);
        while !*stop.borrow() {
            self.read_one(&client, rng.random_range(0..KEYS)).await;
            sleep(READ_PAUSE).await;
        }
        Ok(())
    }

    /// Reads every key through ingest, once.
    pub(super) async fn read_all(&self, stand: &Stand) -> Result<()> {
        for key in 0..KEYS {
            self.read_one(&stand.client, key).await;
        }
        Ok(())
    }

    async fn read_one(&self, client: &Client, key: i64) {
        let from = self.now();
        let answer = client.get(TABLE, Row::new().set("id", self.id(key))).await;
        let span = Span::new(from, self.now());
        let outcome = match answer {
            Ok(found) => {
                let number = |name| found.row.get(name).and_then(|value| value.as_i64()).map(i64::cast_unsigned);
                match (stamp(&found.etag), number("value"), number("lft"), number("rgt")) {
                    (Some(Stamp { version, epoch }), Some(value), Some(left), Some(right)) => {
                        Outcome::Read(Some(Seen { version, epoch: Some(epoch), image: Image { value, left, right } }))
                    }
                    _ => Outcome::Unknown,
                }
            }
            Err(error) if error.is(Reason::NotFound) => Outcome::Read(None),
            Err(_) => Outcome::Refused(Refusal::Other),
        };
        let (client, action) = (u32::MAX, Action::Read);
        let key = key.to_string();
        self.known().history.operations.push(Operation { client, key, action, span, batch: None, outcome });
    }

    /// What the database showed of a key.
    pub(super) fn seen(&self, key: i64, span: Span, row: Option<Seen>, drained: bool) {
        let (at, mut known) = (index(key), self.known());
        while let Some((version, acked)) = known.waiting[at].front().copied()
            && row.is_some_and(|row| row.version >= version)
        {
            known.waiting[at].pop_front();
            known.waited.push((acked, span.to.saturating_sub(acked)));
        }
        // The same again says nothing new.
        if drained || known.shown[at] != row {
            known.shown[at] = row;
            known.history.samples.push(Sample { key: key.to_string(), span, drained, horizon: 0, row });
        }
    }

    /// Keys with an acknowledged write that the database does not show.
    pub(super) fn waiting(&self) -> usize {
        self.known().waiting.iter().filter(|waiting| !waiting.is_empty()).count()
    }

    pub(super) fn verdict(&self, kills: &[u64]) -> Verdict {
        let mut known = self.known();
        // What is not there yet has waited until now, at least.
        let now = self.now();
        let left: Vec<_> = known.waiting.iter().flatten().map(|(_, acked)| (*acked, now - acked)).collect();
        known.waited.extend(left);
        let takeover = |kill: &u64| {
            let after = *kill..*kill + AFTER_KILL_MICROS;
            known.waited.iter().filter(|(acked, _)| after.contains(acked)).map(|(_, waited)| *waited).max()
        };
        let takeovers: Vec<u64> = kills.iter().filter_map(takeover).collect();
        let mut waited: Vec<u64> = known.waited.iter().map(|(_, waited)| *waited).collect();
        waited.sort_unstable();
        let at = |part: f64| waited.get(((waited.len().saturating_sub(1)) as f64 * part) as usize).copied();
        let seconds = |micros: Option<u64>| micros.unwrap_or(u64::MAX) as f64 / 1e6;
        Verdict {
            acked: waited.len(),
            not_acked: known.not_acked,
            findings: known.history.check(),
            median: seconds(at(0.5)),
            p99: seconds(at(0.99)),
            worst: seconds(at(1.0)),
            takeover: takeovers.iter().sum::<u64>() as f64 / takeovers.len().max(1) as f64 / 1e6,
        }
    }
}

fn index(key: i64) -> usize {
    usize::try_from(key).unwrap_or_default()
}

fn stamp(etag: &str) -> Option<Stamp> {
    let Etag { version, epoch } = etag.parse().ok()?;
    Some(Stamp { version: version.get(), epoch: epoch.0 })
}
