//! The consumer: one task, one member of the drain group.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use database::{Database, Owner};
use event_log::{Assignment, EventSource, LogError, LogRecord, SourceEvent, TopicPartition};
use hot_store::{Budget, HotStore};
use model::{DatabaseName, Shard, TableRef, Topic};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    assignment::{Takeover, take_over},
    partition::Partition,
    tables::Tables,
};
use crate::{
    DrainError,
    backoff::Backoff,
    gather::{Generation, Lane},
    horizon::Holding,
    parts::{Parts, Report},
};

/// How often what is gathered and what stands still is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
/// Reports that are taken together, so that progress is told once for all of them.
const REPORTS_AT_ONCE: usize = 256;

/// Owns the source: calls it all the time, takes records in, and tells it how far each partition is done.
pub(crate) struct Consumer<H, S, D> {
    parts: Arc<Parts<H, D>>,
    source: S,
    reports: mpsc::Receiver<Report>,
    tasks: JoinSet<()>,
    tables: Tables,
    partitions: BTreeMap<TopicPartition, Partition>,
    subscribed: BTreeSet<Topic>,
    /// Topics of enabled tables that the log does not have; each is complained of once.
    missing: BTreeSet<Topic>,
    /// Names this process among all that ever were: an owner is never taken for another.
    incarnation: String,
    generations: u64,
    outage: Outage,
}

/// The log is away: when to ask it again.
struct Outage {
    backoff: Backoff,
    until: Option<Instant>,
}

enum Input {
    Source(Result<SourceEvent, LogError>),
    Reports(Vec<Report>),
    TaskEnded(Result<(), JoinError>),
    Measure,
    Stop,
}

impl<H: HotStore + Budget, S: EventSource, D: Database> Consumer<H, S, D> {
    /// `tasks` may hold what belongs to the drain already: it ends with it.
    pub(crate) fn new(parts: Arc<Parts<H, D>>, source: S, reports: mpsc::Receiver<Report>, tasks: JoinSet<()>) -> Self {
        let outage = Outage { backoff: parts.backoff(), until: None };
        let chance = &parts.options.chance;
        let incarnation = format!("{:016x}{:016x}", chance.token(), chance.token());
        Self {
            parts,
            source,
            reports,
            tasks,
            tables: Tables::default(),
            partitions: BTreeMap::new(),
            subscribed: BTreeSet::new(),
            missing: BTreeSet::new(),
            incarnation,
            generations: 0,
            outage,
        }
    }

    /// Consumes until told to stop, then finishes what is in a transaction, commits how far it came, and leaves the
    /// group.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), DrainError> {
        let consumed = self.consume(&shutdown).await;
        if let Err(error) = &consumed {
            tracing::error!(%error, "the drain stops");
        }
        let deadline = Instant::now() + self.parts.options.shutdown_deadline;
        let wound_down = self.wind_down(deadline).await;
        let closed = self.source.close(deadline.saturating_duration_since(Instant::now())).await;
        consumed.and(wound_down).and(parted(closed))
    }

    async fn consume(&mut self, shutdown: &CancellationToken) -> Result<(), DrainError> {
        let mut measure = time::interval(MEASURE_INTERVAL);
        measure.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let mut reports = Vec::new();
            // What comes of records that were taken in goes before taking in more, of which there may always be some:
            // the former ends by itself.
            let input = tokio::select! {
                biased;
                () = shutdown.cancelled() => Input::Stop,
                Some(ended) = self.tasks.join_next() => Input::TaskEnded(ended),
                _ = measure.tick() => Input::Measure,
                _ = self.reports.recv_many(&mut reports, REPORTS_AT_ONCE) => Input::Reports(reports),
                event = next(&mut self.source, self.outage.until) => Input::Source(event),
            };
            match input {
                Input::Stop => return Ok(()),
                Input::Source(event) => self.on_source(event)?,
                Input::Reports(reports) => {
                    for report in reports {
                        self.on_report(report).await?;
                    }
                }
                Input::TaskEnded(ended) => check(ended)?,
                Input::Measure => self.measure(),
            }
            self.settle()?;
        }
    }

    /// Lets transactions end and their records be marked clean; what only waits is left to be redelivered, for under
    /// a tight limit it could take hours. The membership is kept until then, so that nobody else begins with it.
    async fn wind_down(&mut self, deadline: Instant) -> Result<(), DrainError> {
        self.parts.stop.cancel();
        // A quarter of the time is for the commit.
        let rest = deadline.saturating_duration_since(Instant::now());
        let until = deadline - rest / 4;
        let all: Vec<_> = self.partitions.keys().cloned().collect();
        let mut source_is_up = self.source.pause(&all).is_ok();
        while !self.tasks.is_empty() {
            let mut reports = Vec::new();
            tokio::select! {
                biased;
                () = time::sleep_until(until) => {
                    tracing::warn!(unfinished = self.tasks.len(), "stopping before all work was done; the rest is redelivered");
                    break;
                }
                Some(ended) = self.tasks.join_next() => check(ended)?,
                _ = self.reports.recv_many(&mut reports, REPORTS_AT_ONCE) => self.finish_all(reports),
                event = self.source.next(), if source_is_up => match event {
                    Ok(SourceEvent::Revoked(gone) | SourceEvent::Lost(gone)) => self.on_gone(&gone),
                    // Not taken in, so not counted as done: the next owner is delivered it.
                    Ok(SourceEvent::Records(_) | SourceEvent::Assigned(_) | SourceEvent::Missing(..)) => {}
                    Err(_) => source_is_up = false,
                },
            }
            source_is_up &= self.settle().is_ok();
        }
        let mut last = Vec::new();
        while let Ok(report) = self.reports.try_recv() {
            last.push(report);
        }
        self.finish_all(last);
        self.settle()
    }

    fn on_source(&mut self, event: Result<SourceEvent, LogError>) -> Result<(), DrainError> {
        let Outage { backoff, until } = &mut self.outage;
        match event {
            Ok(event) => {
                if backoff.failures() > 0 {
                    tracing::info!("the event log answers again");
                }
                backoff.reset();
                *until = None;
                match event {
                    SourceEvent::Records(records) => self.on_records(records),
                    SourceEvent::Missing(at, offsets) => self.on_missing(&at, &offsets),
                    SourceEvent::Assigned(assigned) => self.on_assigned(&assigned),
                    SourceEvent::Revoked(gone) => {
                        tracing::info!(partitions = gone.len(), "partitions were given to others");
                        self.on_gone(&gone);
                    }
                    SourceEvent::Lost(gone) => {
                        tracing::warn!(partitions = gone.len(), "partitions were lost to others");
                        self.on_gone(&gone);
                    }
                }
                Ok(())
            }
            Err(error @ (LogError::Unavailable(_) | LogError::NoSuchTopic(_))) => {
                if backoff.failures() == 0 {
                    tracing::warn!(%error, "nothing can be read; trying until it can");
                }
                *until = Some(Instant::now() + backoff.next_delay());
                Ok(())
            }
            Err(error @ (LogError::Unfit(_) | LogError::Fatal(_))) => Err(DrainError::Log(error)),
        }
    }

    fn on_records(&mut self, records: Vec<LogRecord>) {
        let mut met: Vec<TopicPartition> = Vec::new();
        for record in records {
            if met.last() != Some(&record.from) {
                met.push(record.from.clone());
            }
            // Of a partition that is not ours any more: its owner is delivered it.
            if let Some(partition) = self.partitions.get_mut(&record.from) {
                partition.deliver(record);
            }
        }
        met.sort_unstable();
        met.dedup();
        self.advance(&met);
    }

    /// The watermark passes them with the next record. Nothing has marked them clean, so the relay finds them dirty behind
    /// what is drained and produces them again.
    fn on_missing(&self, at: &TopicPartition, offsets: &Range<i64>) {
        let TopicPartition { topic, partition } = at;
        self.parts.metrics.missing(offsets.end.saturating_sub(offsets.start).unsigned_abs());
        tracing::error!(%topic, partition, from = offsets.start, before = offsets.end,
            "the log does not have these records: the brokers have lost them or can't read them, or somebody writes \
             transactions into the topic. The drain goes on behind them; writes among them stay dirty in the hot store \
             and are produced again. Look at the brokers' logs and disks");
    }

    fn on_assigned(&mut self, assigned: &[Assignment]) {
        self.generations += 1;
        let generation = Generation(self.generations);
        for assignment in assigned {
            let at = &assignment.partition;
            if let Some(earlier) = self.partitions.remove(at) {
                earlier.give_up(Shard(at.partition));
            }
            self.partitions.insert(at.clone(), Partition::new(assignment, generation));
        }
        tracing::info!(partitions = assigned.len(), generation = generation.0, "partitions were assigned");
        let partitions: Vec<_> = assigned.iter().map(|assignment| assignment.partition.clone()).collect();
        self.claim(&partitions, generation);
    }

    /// Gives partitions their lanes and takes them over in their databases, under an owner's name of their own.
    fn claim(&mut self, partitions: &[TopicPartition], generation: Generation) {
        let owner = Owner(format!("{}/{}/{}", self.parts.options.replica, self.incarnation, generation.0));
        let mut takeovers: BTreeMap<DatabaseName, Vec<Takeover>> = BTreeMap::new();
        for at in partitions {
            let Some(table) = self.parts.directory.by_topic(&at.topic) else { continue };
            let Some(partition) = self.partitions.get_mut(at) else { continue };
            let shard = Shard(at.partition);
            let lane = self.tables.lane(&table, shard, &self.parts, &mut self.tasks);
            lane.with(|gathered| gathered.assign(shard, generation, owner.clone()));
            partition.generation = generation;
            partition.full = self.tables.is_full(&lane);
            partition.lane = Some(lane.clone());
            let of_database = takeovers.entry(table.schema.table.database.clone()).or_default();
            match of_database.iter_mut().find(|takeover| Arc::ptr_eq(&takeover.lane, &lane)) {
                Some(takeover) => takeover.shards.push(shard),
                None => of_database.push(Takeover { lane, shards: vec![shard] }),
            }
        }
        for (database, takeovers) in takeovers {
            self.tasks.spawn(take_over(self.parts.clone(), database, takeovers, generation, owner.clone()));
        }
    }

    fn on_gone(&mut self, gone: &[TopicPartition]) {
        let mut lanes: Vec<Arc<Lane>> = Vec::new();
        for at in gone {
            if let Some(partition) = self.partitions.remove(at) {
                partition.give_up(Shard(at.partition));
                lanes.extend(partition.lane);
            }
        }
        for lane in lanes {
            self.look_for_room(&lane);
        }
    }

    async fn on_report(&mut self, report: Report) -> Result<(), DrainError> {
        match report {
            Report::Tables => return self.on_tables().await,
            Report::Owned { lane, shards, generation } => {
                let owned: Vec<_> = shards.into_iter().map(|shard| lane.partition(shard)).collect();
                for at in &owned {
                    if let Some(partition) = self.partitions.get_mut(at).filter(|p| p.generation == generation) {
                        partition.owned = true;
                    }
                }
                self.advance(&owned);
            }
            Report::Done { lane, shard, generation, offsets } => {
                self.finish(&lane, shard, generation, &offsets);
                self.look_for_room(&lane);
            }
            Report::Room { lane } => self.look_for_room(&lane),
            // Who asked may have ended meanwhile.
            Report::Holdings { answer } => drop(answer.send(self.holdings())),
        }
        Ok(())
    }

    /// What this process owns in the databases.
    fn holdings(&self) -> Vec<Holding> {
        let owned = self.partitions.iter().filter(|(_, partition)| partition.owned);
        let holding = |(at, partition): (&TopicPartition, &Partition)| {
            let (lane, shard) = (partition.lane.clone()?, Shard(at.partition));
            let owner = lane.with(|gathered| gathered.owner(shard).cloned())?;
            Some(Holding { lane, shard, owner })
        };
        owned.filter_map(holding).collect()
    }

    fn finish_all(&mut self, reports: Vec<Report>) {
        for report in reports {
            if let Report::Done { lane, shard, generation, offsets } = report {
                self.finish(&lane, shard, generation, &offsets);
            }
        }
    }

    /// Counts only for the assignment under which the records were delivered.
    fn finish(&mut self, lane: &Lane, shard: Shard, generation: Generation, offsets: &[i64]) {
        let at = lane.partition(shard);
        if let Some(partition) = self.partitions.get_mut(&at).filter(|p| p.generation == generation) {
            partition.finish(offsets);
        }
    }

    /// Follows the catalog: subscribes to the topics of enabled tables; what stood still for want of a table may go on.
    async fn on_tables(&mut self) -> Result<(), DrainError> {
        self.subscribe().await?;
        let homeless: Vec<_> =
            self.partitions.iter().filter(|(_, p)| p.lane.is_none()).map(|(at, _)| at.clone()).collect();
        if homeless.iter().any(|at| self.parts.directory.by_topic(&at.topic).is_some()) {
            self.generations += 1;
            self.claim(&homeless, Generation(self.generations));
        }
        let held: Vec<_> = self.partitions.iter().filter(|(_, p)| p.is_held()).map(|(at, _)| at.clone()).collect();
        self.advance(&held);
        let Self { tables, partitions, parts, .. } = self;
        tables.retain(|topic| {
            parts.directory.by_topic(topic).is_some() || partitions.keys().any(|at| at.topic == *topic)
        });
        Ok(())
    }

    /// Subscribes to what is there: a topic that is missing stops only its own table.
    async fn subscribe(&mut self) -> Result<(), DrainError> {
        let mut topics: BTreeSet<Topic> =
            self.parts.directory.all().iter().map(|table| table.settings.topic.clone()).collect();
        while topics != self.subscribed {
            let wanted: Vec<Topic> = topics.iter().cloned().collect();
            match self.source.subscribe(&wanted).await {
                Ok(()) => {
                    tracing::info!(topics = topics.len(), "subscribed");
                    self.missing.retain(|topic| !topics.contains(topic));
                    self.subscribed = topics;
                    break;
                }
                Err(LogError::NoSuchTopic(topic)) if topics.remove(&topic) => {
                    if self.missing.insert(topic.clone()) {
                        tracing::error!(%topic, "the event log has no such topic, so its table is not drained; enable it again");
                    }
                }
                // Tried again when the tables are looked at the next time.
                Err(error @ (LogError::Unavailable(_) | LogError::NoSuchTopic(_))) => {
                    tracing::warn!(%error, "the topics of the enabled tables can't be subscribed to yet");
                    break;
                }
                Err(error) => return Err(DrainError::Log(error)),
            }
        }
        Ok(())
    }

    /// Takes in what was delivered to these partitions.
    fn advance(&mut self, partitions: &[TopicPartition]) {
        let mut lanes: Vec<Arc<Lane>> = Vec::new();
        for at in partitions {
            let Some(partition) = self.partitions.get_mut(at) else { continue };
            let taken = partition.advance();
            if let Some(metrics) = self.tables.metrics(&at.topic).filter(|_| taken.void > 0) {
                self.parts.metrics.of(metrics).void(taken.void);
            }
            if let Some(lane) = partition.lane.as_ref().filter(|_| taken.gathered > 0)
                && !lanes.iter().any(|known| Arc::ptr_eq(known, lane))
            {
                lanes.push(lane.clone());
            }
        }
        for lane in lanes {
            lane.wake();
            self.look_for_room(&lane);
        }
    }

    fn look_for_room(&mut self, lane: &Arc<Lane>) {
        let full = self.tables.is_full(lane);
        for partition in self.partitions.values_mut() {
            if partition.lane.as_ref().is_some_and(|of| Arc::ptr_eq(of, lane)) {
                partition.full = full;
            }
        }
    }

    /// Tells the source what follows from the last input: what is done, and what stands or goes on.
    fn settle(&mut self) -> Result<(), DrainError> {
        let (mut progress, mut pause, mut resume) = (Vec::new(), Vec::new(), Vec::new());
        for (at, partition) in &mut self.partitions {
            if let Some(done) = partition.unnoted_progress() {
                progress.push((at.clone(), done));
            }
            match partition.change_of_delivery() {
                Some(true) => pause.push(at.clone()),
                Some(false) => resume.push(at.clone()),
                None => {}
            }
        }
        if !progress.is_empty() {
            self.source.note_progress(&progress);
        }
        if !pause.is_empty() {
            self.source.pause(&pause)?;
        }
        if !resume.is_empty() && !self.parts.stop.is_cancelled() {
            self.source.resume(&resume)?;
        }
        Ok(())
    }

    fn measure(&self) {
        let standing = self.partitions.values().filter(|p| p.is_paused()).count();
        let held = self.partitions.values().filter(|p| p.is_held()).count();
        self.parts.metrics.standing(standing, held);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for (table, metrics, records, bytes, oldest) in self.tables.gathered() {
            self.parts.metrics.of(metrics).gathered(records, bytes, oldest, now.as_micros() as u64);
            self.parts.board.gathered(table, records);
        }
        let mut owned: BTreeMap<TableRef, Vec<Shard>> = BTreeMap::new();
        for (at, partition) in self.partitions.iter().filter(|(_, partition)| partition.owned) {
            if let Some(lane) = &partition.lane {
                owned.entry(lane.table.schema.table.clone()).or_default().push(Shard(at.partition));
            }
        }
        self.parts.board.owns(owned);
    }
}

/// The source's next event, not before a time. Cancel-safe, as the source is.
async fn next<S: EventSource>(source: &mut S, not_before: Option<Instant>) -> Result<SourceEvent, LogError> {
    if let Some(until) = not_before {
        time::sleep_until(until).await;
    }
    source.next().await
}

/// What the last commit came to. The group may just be sharing its partitions anew, or the log be away: that is no
/// failure of who was told to stop.
fn parted(closed: Result<(), LogError>) -> Result<(), DrainError> {
    match closed {
        Ok(()) => Ok(()),
        Err(error @ (LogError::Unavailable(_) | LogError::NoSuchTopic(_))) => {
            tracing::warn!(%error, "the last progress was not committed; the next owner of the partitions is delivered \
                what was done since the last commit once more");
            Ok(())
        }
        Err(error @ (LogError::Unfit(_) | LogError::Fatal(_))) => Err(DrainError::Log(error)),
    }
}

fn check(ended: Result<(), JoinError>) -> Result<(), DrainError> {
    match ended {
        Err(error) if error.is_panic() => Err(DrainError::Panicked(error.to_string())),
        _ => Ok(()),
    }
}
