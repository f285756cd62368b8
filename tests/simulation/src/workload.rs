//! What clients do, and what they learn.

mod attempt;
mod reads;
mod streams;
mod writes;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use history::{Action, BatchPlace, Image, Operation, Outcome, Refusal, Span, Stamp};
use model::{Row, Value};
use tokio::time::sleep;

use crate::{nature::lock, world::World};

/// A client gives an attempt up after that.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Whatever is done by then.
const ENOUGH: Duration = Duration::from_secs(20);
/// Who was sent away comes again after so long, at most.
const AFTER_REFUSAL: Duration = Duration::from_millis(200);
/// Operations in vain for each that is to be done, at most.
const IN_VAIN: u64 = 4;
/// Records of a batch, at most.
const BATCH: u64 = 3;

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
            if self.world.nature.happens(self.world.nature.climate().streams) {
                self.stream().await;
                continue;
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

    /// Notes an operation that began then and is over now.
    fn record(&mut self, at: usize, action: Action, from: u64, batch: Option<BatchPlace>, outcome: Outcome) {
        self.record_in(Span::new(from, self.world.tick()), at, action, batch, outcome);
    }

    fn record_in(&mut self, span: Span, at: usize, action: Action, batch: Option<BatchPlace>, outcome: Outcome) {
        let key = self.world.records[at].name.clone();
        let operation = Operation { client: self.number, key, action, span, batch, outcome };
        self.was_sent_away |= operation.outcome == Outcome::Refused(Refusal::Other);
        self.world.nature.note(|| format!("CLIENT {}: {operation}", operation.key));
        let mut history = lock(&self.world.history);
        history.unwritable.extend(action.value().filter(|value| self.world.is_poison(*value)));
        history.operations.push(operation);
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
