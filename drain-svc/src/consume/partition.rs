//! One assigned partition.

use std::{collections::VecDeque, sync::Arc};

use event_log::{Assignment, LogRecord, Progress, TopicPartition};
use model::Shard;
use tokio::time::Instant;

use super::{
    intake::{self, Intake, Unreadable},
    watermark::Watermark,
};
use crate::{
    dead_letter::Undeliverable,
    gather::{Gathered, Generation, Lane},
};

/// What taking records in came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenIn {
    pub(crate) gathered: usize,
    pub(crate) void: usize,
}

/// An assigned partition: how far it is, and why it stands still if it does.
pub(crate) struct Partition {
    pub(crate) generation: Generation,
    /// `None` while its topic belongs to no enabled table.
    pub(crate) lane: Option<Arc<Lane>>,
    /// This process is the owner in the database.
    pub(crate) owned: bool,
    /// Its lane has no room.
    pub(crate) full: bool,
    watermark: Watermark,
    /// Delivered while it stands still; taken in before anything else. Bounded: a partition that stands is paused,
    /// so this is what was on its way.
    waiting: VecDeque<LogRecord>,
    /// The first of those that wait can be neither applied nor skipped.
    held: Option<Unreadable>,
    /// What was complained of last: once is enough.
    complained: Option<(i64, Unreadable)>,
    paused: bool,
    noted: Progress,
}

impl Partition {
    pub(crate) fn new(assignment: &Assignment, generation: Generation) -> Self {
        let watermark = Watermark::new(assignment.committed);
        Self {
            generation,
            lane: None,
            owned: false,
            full: false,
            noted: watermark.progress(),
            watermark,
            waiting: VecDeque::new(),
            held: None,
            complained: None,
            paused: false,
        }
    }

    /// Takes what was delivered; it waits while the partition stands.
    pub(crate) fn deliver(&mut self, record: LogRecord) {
        self.waiting.push_back(record);
    }

    /// Takes in what waits, as far as possible.
    pub(crate) fn advance(&mut self) -> TakenIn {
        let mut taken = TakenIn::default();
        let Some(lane) = self.lane.clone() else {
            self.held = (!self.waiting.is_empty()).then_some(Unreadable::NoTable);
            self.complain();
            return taken;
        };
        if !self.owned {
            return taken;
        }
        self.held = None;
        while let Some(record) = self.waiting.pop_front() {
            match intake::read(&record, &lane.table.schema.table, self.watermark.in_force()) {
                Ok(Intake::Fence(epoch)) => {
                    self.watermark.fence(record.offset, epoch);
                }
                Ok(Intake::Void) => {
                    taken.void += usize::from(self.watermark.pass(record.offset));
                }
                Ok(Intake::Requests) => {
                    self.watermark.pass(record.offset);
                }
                Ok(Intake::Change(change)) => {
                    if self.watermark.begin(record.offset) {
                        let (generation, offset) = (self.generation, record.offset);
                        let bytes = record.payload.len() + record.key.len();
                        let payload = record.payload;
                        let gathered = Gathered { generation, offset, bytes, change, payload };
                        lane.with(|lane| lane.gather(gathered, Instant::now()));
                        taken.gathered += 1;
                    }
                }
                Err(why) if why.reason().is_some() => self.give_up_unreadable(&lane, record, &why),
                Err(why) => {
                    self.held = Some(why);
                    self.waiting.push_front(record);
                    self.complain();
                    break;
                }
            }
        }
        taken
    }

    /// Nobody will ever be able to read it: it goes to the dead letters, and the partition goes on.
    fn give_up_unreadable(&mut self, lane: &Lane, record: LogRecord, why: &Unreadable) {
        let Some(reason) = why.reason().filter(|_| self.watermark.begin(record.offset)) else { return };
        let TopicPartition { topic, partition } = &record.from;
        tracing::error!(%topic, partition, offset = record.offset, problem = %why, "a record can't be read");
        let (shard, generation) = (Shard(*partition), self.generation);
        let bytes = record.payload.len() + record.key.len();
        lane.with(|gathered| gathered.give_up_unreadable(shard, generation, record.offset, bytes));
        let met = Instant::now();
        lane.give_up(Undeliverable::Unreadable { generation, record, reason, met });
    }

    /// Says loudly, but once, what has to be done.
    fn complain(&mut self) {
        let (Some(why), Some(LogRecord { from, offset, .. })) = (&self.held, self.waiting.front()) else { return };
        let complaint = Some((*offset, why.clone()));
        if self.complained != complaint {
            let TopicPartition { topic, partition } = from;
            tracing::error!(
                %topic, partition, offset, problem = %why,
                "a record can be neither applied nor skipped; its partition stands still before it until it can"
            );
            self.complained = complaint;
        }
    }

    /// Whether it stands at a record that can't be read.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Records of this assignment are done.
    pub(crate) fn finish(&mut self, offsets: &[i64]) {
        for offset in offsets {
            self.watermark.finish(*offset);
        }
    }

    /// How far it is, if that was not told yet.
    pub(crate) fn unnoted_progress(&mut self) -> Option<Progress> {
        let progress = self.watermark.progress();
        (std::mem::replace(&mut self.noted, progress) != progress).then_some(progress)
    }

    /// Whether it has delivered anything that may not be taken in.
    fn stands(&self) -> bool {
        !self.owned || self.full || self.lane.is_none() || self.held.is_some()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// `Some(paused)` if delivery has to be stopped, or to go on, from now on.
    pub(crate) fn change_of_delivery(&mut self) -> Option<bool> {
        let stands = self.stands();
        (std::mem::replace(&mut self.paused, stands) != stands).then_some(stands)
    }

    /// Forgets what its lane has gathered of it; it goes to another owner.
    pub(crate) fn give_up(&self, shard: Shard) {
        if let Some(lane) = &self.lane {
            lane.with(|gathered| gathered.revoke(shard));
        }
    }
}
