//! The one task that writes the dead letters of a lane.

use std::{collections::BTreeMap, sync::Arc};

use event_log::{Outgoing, PublishError};
use hot_store::{HotStore, Stamp};
use model::{DeadLetter, Shard, Topic};
use tokio::{sync::mpsc::UnboundedReceiver, time};
use tokio_util::sync::CancellationToken;

use super::letter::{Sender, Undeliverable};
use crate::{
    backoff::Backoff,
    gather::Lane,
    parts::{Parts, Report},
    status::TableMetrics,
};

/// What is written at once.
const LETTERS_AT_ONCE: usize = 100;

/// Something that is given up, and how far it is with that.
struct Pending {
    what: Undeliverable,
    /// The dead-letter topic has all its letters.
    is_lettered: bool,
}

/// Writes letters, parks records, and only then calls them done; whatever of it fails is tried again, and others don't
/// wait for it.
///
/// Nothing but the order keeps a record: wherever this breaks off, its offset is not committed, so it is delivered, refused,
/// lettered and parked again. A letter that is there twice says the same twice.
pub(crate) struct DeadLetters<H, D> {
    lane: Arc<Lane>,
    given_up: UnboundedReceiver<Undeliverable>,
    parts: Arc<Parts<H, D>>,
    metrics: TableMetrics,
    stop: CancellationToken,
    backoff: Backoff,
    /// The topic, once it is there.
    topic: Option<Topic>,
    pending: Vec<Pending>,
}

impl<H: HotStore, D> DeadLetters<H, D> {
    pub(crate) fn new(
        lane: Arc<Lane>,
        given_up: UnboundedReceiver<Undeliverable>,
        parts: Arc<Parts<H, D>>,
        metrics: TableMetrics,
        stop: CancellationToken,
    ) -> Self {
        let backoff = parts.backoff();
        Self { lane, given_up, parts, metrics, stop, backoff, topic: None, pending: Vec::new() }
    }

    /// Until it is stopped; what is not done by then is delivered again to whoever comes next.
    pub(crate) async fn run(mut self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.deliver()).await;
    }

    async fn deliver(&mut self) {
        loop {
            self.take_in().await;
            let problem = self.attempt().await;
            match problem {
                None => self.backoff.reset(),
                Some(problem) => {
                    if self.backoff.failures() == 0 {
                        let (table, waiting) = (&self.lane.table.schema.table, self.pending.len());
                        tracing::warn!(%table, waiting, problem, "dead letters can't be written; trying until they can");
                    }
                    self.parts.metrics.of(&self.metrics).retry("dead_letter");
                    time::sleep(self.backoff.next_delay()).await;
                }
            }
        }
    }

    /// Takes in what is there, and waits for something if nothing is pending.
    async fn take_in(&mut self) {
        let mut taken = Vec::new();
        if self.pending.is_empty() {
            self.given_up.recv_many(&mut taken, LETTERS_AT_ONCE).await;
        }
        while self.pending.len() + taken.len() < LETTERS_AT_ONCE
            && let Ok(more) = self.given_up.try_recv()
        {
            taken.push(more);
        }
        for what in taken {
            if planted::is(planted::Bug::LetterAfterOffset) {
                self.report(&what).await;
            }
            self.pending.push(Pending { what, is_lettered: false });
        }
    }

    /// Writes the letters of all that are pending, and parks their records: what is in the way, if it was not possible
    /// for all of them.
    async fn attempt(&mut self) -> Option<String> {
        let lane = self.lane.clone();
        let (kept, lost): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().partition(|pending| {
            let (shard, generation) = (pending.what.shard(), pending.what.generation());
            lane.with(|gathered| gathered.is_assigned(shard, generation))
        });
        self.pending = kept;
        // Its next owner is delivered it.
        for Pending { what, .. } in &lost {
            release(&lane, what);
        }
        if !lost.is_empty() {
            self.parts.report(Report::Room { lane }).await;
        }
        let unwritten = self.write_letters().await;
        let unparked = self.park().await;
        unwritten.or(unparked)
    }

    async fn write_letters(&mut self) -> Option<String> {
        if self.pending.iter().all(|pending| pending.is_lettered) {
            return None;
        }
        let letters = match self.topic().await {
            Ok(topic) => topic,
            Err(problem) => return Some(problem),
        };
        let (lane, parts) = (self.lane.clone(), self.parts.clone());
        let from = Sender {
            table: &lane.table.schema.table,
            topic: &lane.topic,
            letters: &letters,
            replica: &parts.options.replica,
        };
        let mut letters: Vec<(usize, Shard, DeadLetter)> = Vec::new();
        for (at, pending) in self.pending.iter().enumerate().filter(|(_, pending)| !pending.is_lettered) {
            let shard = pending.what.shard();
            letters.extend(pending.what.letters(&from).into_iter().map(|letter| (at, shard, letter)));
        }
        for pending in &mut self.pending {
            pending.is_lettered = true;
        }
        let records = letters.iter().map(|(_, shard, letter)| from.outgoing(*shard, letter.clone())).collect();
        let answers = parts.post.publish(records).await;
        let mut problem = None;
        for ((at, shard, letter), answer) in letters.into_iter().zip(answers) {
            let answer = match answer {
                Err(PublishError::TooLarge { .. }) => self.write_large(&from, shard, letter).await,
                answer => answer,
            };
            if let Err(error) = answer
                && !planted::is(planted::Bug::LetterLost)
            {
                // What may be there is written again: it is the same.
                self.pending[at].is_lettered = false;
                problem = Some(error.to_string());
            }
        }
        problem
    }

    /// Writes a letter that was too large in company. A log may say so of all that it was handed at once; what is too large
    /// by itself is cut, since waiting makes it no smaller, and its partition would wait for ever.
    async fn write_large(&self, from: &Sender<'_>, shard: Shard, letter: DeadLetter) -> Result<i64, PublishError> {
        let alone = self.write_alone(from.outgoing(shard, letter.clone())).await;
        let Err(PublishError::TooLarge { bytes }) = alone else { return alone };
        let (topic, partition, offset) = (from.topic, shard.0, letter.offset);
        tracing::warn!(
            %topic, partition, offset, bytes,
            "a dead letter is larger than its topic takes; it is written without its event, which lies at this offset \
             until its topic's retention takes it"
        );
        self.write_alone(from.outgoing(shard, letter.cut())).await
    }

    async fn write_alone(&self, record: Outgoing) -> Result<i64, PublishError> {
        let nothing = || Err(PublishError::Unknown("the log answered nothing".to_owned()));
        self.parts.post.publish(vec![record]).await.pop().unwrap_or_else(nothing)
    }

    /// The dead-letter topic; made, if nobody has done so before.
    async fn topic(&mut self) -> Result<Topic, String> {
        if let Some(topic) = &self.topic {
            return Ok(topic.clone());
        }
        let topic = self.lane.topic.dead_letters().map_err(|error| error.to_string())?;
        let options = &self.parts.options;
        let made = self.parts.post.ensure_topic(&topic, options.shards, options.log).await;
        made.map_err(|error| error.to_string())?;
        self.topic = Some(topic.clone());
        Ok(topic)
    }

    /// Parks the records of what is lettered, shard by shard.
    async fn park(&mut self) -> Option<String> {
        let namespace = &self.lane.table.settings.namespace;
        let mut shards: BTreeMap<Shard, Vec<Stamp>> = BTreeMap::new();
        for pending in self.pending.iter().filter(|pending| pending.is_lettered) {
            shards.entry(pending.what.shard()).or_default().extend(pending.what.stamps(namespace));
        }
        let mut problem = None;
        for (shard, stamps) in shards {
            if !stamps.is_empty()
                && let Err(error) = self.parts.hot.park(shard, stamps).await
            {
                problem = Some(error.to_string());
                continue;
            }
            let (done, pending): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
                .into_iter()
                .partition(|pending| pending.is_lettered && pending.what.shard() == shard);
            self.pending = pending;
            for Pending { what, .. } in done {
                for cause in what.causes() {
                    self.parts.metrics.of(&self.metrics).dead_lettered(cause);
                }
                release(&self.lane, &what);
                self.report(&what).await;
            }
        }
        problem
    }

    /// Tells the consumer that its records are done. It knows whether the assignment still stands.
    async fn report(&self, what: &Undeliverable) {
        let (lane, shard, generation) = (self.lane.clone(), what.shard(), what.generation());
        self.parts.report(Report::Done { lane, shard, generation, offsets: what.offsets() }).await;
    }
}

fn release(lane: &Lane, what: &Undeliverable) {
    lane.with(|gathered| match what {
        Undeliverable::Refused { shard, ticket } => gathered.release(*shard, ticket),
        Undeliverable::Unreadable { generation, record, .. } => {
            gathered.release_unreadable(what.shard(), *generation, record.offset);
        }
    });
}
