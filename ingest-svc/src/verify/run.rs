//! One verification: stretch after stretch of each partition, and what is late at the end of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use database::{CatalogEntry, CatalogTable, Database};
use event_log::{EventPublisher, LogReader, TopicPartition};
use hot_store::{HotStore, Stage};
use jiff::Timestamp;
use model::{KeyBytes, Version};
use tokio::time::{Instant, sleep};

use super::{
    MAX_LISTED, MAX_RATE, VerifyError, VerifyRequest,
    content::Schema,
    law::{self, DifferenceKind, Hot, HotSlot, Look, Verdict, judge},
    look::{Depth, Place},
    pace::Pace,
    report::{Difference, Progress, Tell, Told},
    window::{LEAD, Met, Stretch, Window, forget_superseded},
};
use crate::Core;

/// Records of one call to a store.
const MAX_CALL: usize = 256;
/// Records of a partition whose tombstone may have been purged, and that are judged once all of the log is read.
const MAX_LATE: usize = 1 << 16;
/// What seems to differ is looked at again after these times. Two looks that have seen the same settle it.
const LOOK_AGAIN: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// For how long it waits until somebody takes what it tells.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// For how long a store may be away, and how often it is asked then.
const PATIENCE: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// One verification.
pub(super) struct Run<'a, H, L, D> {
    core: &'a Core<H, L, D>,
    table: Arc<CatalogTable>,
    since: Option<Timestamp>,
    max_listed: usize,
    tell: &'a Tell,
    progress: Progress,
    /// Those that were told, so that each is told and counted once.
    listed: BTreeSet<KeyBytes>,
    untold: Vec<Difference>,
    told_at: Instant,
    pace: Pace,
}

type Records = BTreeMap<KeyBytes, Met>;

/// What a difference is known by when it is met again.
type Signature = (DifferenceKind, Option<(Version, Stage)>, Option<Version>);

impl<'a, H, L, D> Run<'a, H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    pub(super) fn new(
        core: &'a Core<H, L, D>,
        table: Arc<CatalogTable>,
        request: &VerifyRequest,
        tell: &'a Tell,
    ) -> Self {
        Self {
            core,
            table,
            since: request.since,
            max_listed: request.max_listed.min(MAX_LISTED),
            tell,
            progress: Progress::default(),
            listed: BTreeSet::new(),
            untold: Vec::new(),
            told_at: Instant::now(),
            pace: Pace::of(request.records_per_second.min(MAX_RATE)),
        }
    }

    /// Compares all that the log has of the table.
    pub(super) async fn all(mut self) -> Result<Progress, VerifyError> {
        let topic = &self.table.settings.topic;
        let partitions: Vec<TopicPartition> =
            self.core.shards.all().map(|shard| TopicPartition { topic: topic.clone(), partition: shard.0 }).collect();
        let patience = Patience::new();
        let offsets = loop {
            match self.offsets(&partitions).await {
                Ok(offsets) => break offsets,
                Err(error) => patience.after(error).await?,
            }
        };
        self.progress.records = offsets.iter().map(|(_, range)| (range.end - range.start).unsigned_abs()).sum();
        self.progress.deleted =
            offsets.iter().filter(|(low, range)| *low == range.start).map(|(low, _)| low.unsigned_abs()).sum();
        self.tell(false).await?;
        for (at, (_, offsets)) in partitions.into_iter().zip(offsets) {
            if !offsets.is_empty() {
                self.partition(at, offsets).await?;
            }
        }
        self.tell(true).await?;
        let (table, progress) = (&self.table.schema.table, self.progress);
        if progress.differ > 0 {
            tracing::warn!(%table, ?progress, "a verification has found records that differ");
        } else {
            tracing::info!(%table, ?progress, "a verification has found nothing that differs");
        }
        Ok(self.progress)
    }

    /// Where each partition begins, and what of it is read.
    async fn offsets(&self, partitions: &[TopicPartition]) -> Result<Vec<(i64, std::ops::Range<i64>)>, VerifyError> {
        let log = &*self.core.log;
        let bounds = log.bounds(partitions).await?;
        let starts = match self.since {
            // A write is older than its event in the log. How much older does not matter, if it is less than this.
            Some(since) => {
                let from = since.as_millisecond().saturating_sub(i64::try_from(LEAD.as_millis()).unwrap_or(i64::MAX));
                log.first_since(partitions, from.max(0)).await?
            }
            None => bounds.iter().map(|(low, _)| *low).collect(),
        };
        let range = |((low, high), start): ((i64, i64), i64)| (low, start.max(low).min(high)..high);
        Ok(bounds.into_iter().zip(starts).map(range).collect())
    }

    async fn partition(&mut self, at: TopicPartition, offsets: std::ops::Range<i64>) -> Result<(), VerifyError> {
        let table = self.table.clone();
        let since = self.since.map_or(0, |since| u64::try_from(since.as_microsecond()).unwrap_or(0));
        let since = Version::new(since).unwrap_or(Version::MAX);
        let mut window = Window::new(&table.schema, self.core.shards, at, offsets, since);
        let mut late = Records::new();
        while !window.is_read() {
            let stretch = self.read(&mut window).await?;
            forget_superseded(&mut late, &stretch);
            self.compare(&window, stretch, &mut late).await?;
        }
        self.after_the_log(&mut window, late).await
    }

    /// Reads on in the log.
    async fn read(&mut self, window: &mut Window<'_>) -> Result<Stretch, VerifyError> {
        let log = &*self.core.log;
        let patience = Patience::new();
        loop {
            let bounds = log.bounds(std::slice::from_ref(window.partition())).await;
            let read = match bounds.map(|bounds| bounds.first().copied()) {
                Ok(Some((low, _))) => {
                    // The log goes on deleting while it is read.
                    let passed = window.begins_at(low);
                    self.progress.deleted += passed;
                    self.progress.records = self.progress.records.saturating_sub(passed);
                    window.read(log).await
                }
                Ok(None) => Err(VerifyError::LogDown("it tells no end".to_owned())),
                Err(error) => Err(error.into()),
            };
            match read {
                Ok(stretch) => {
                    self.progress.read += stretch.records;
                    self.progress.void += stretch.void;
                    self.progress.strange += stretch.strange;
                    return Ok(stretch);
                }
                Err(VerifyError::LogUnfit(_)) if begins_behind(log, window).await => {}
                Err(error) => patience.after(error).await?,
            }
        }
    }

    /// Compares the newest writes of a stretch. What only who has read all of the log can judge goes to `late`.
    async fn compare(&mut self, window: &Window<'_>, stretch: Stretch, late: &mut Records) -> Result<(), VerifyError> {
        let (read, mut newest) = (stretch.records, stretch.newest);
        let keys = (newest.len() as u64).max(1);
        let mut suspects = Records::new();
        loop {
            let some = first(&mut newest, MAX_CALL);
            // Each record of the stretch has its time, spread over its keys.
            self.pace.take((read * (some.len() as u64).max(1)).div_ceil(keys)).await;
            if some.is_empty() {
                break;
            }
            for (verdict, (key, met), _) in self.judged(window, some, Depth::Stores).await? {
                match verdict {
                    Verdict::Differs(_) => drop(suspects.insert(key, met)),
                    verdict => self.settle(verdict, key, met, late),
                }
            }
            self.tell_now_and_then().await?;
            if newest.is_empty() {
                break;
            }
        }
        self.look_again(window, suspects, late).await
    }

    /// Looks at what seems to differ until two looks have seen the same, or it does not any more.
    async fn look_again(
        &mut self,
        window: &Window<'_>,
        mut suspects: Records,
        late: &mut Records,
    ) -> Result<(), VerifyError> {
        let mut seen: BTreeMap<KeyBytes, Signature> = BTreeMap::new();
        for pause in LOOK_AGAIN {
            if suspects.is_empty() {
                return Ok(());
            }
            sleep(pause).await;
            if self.table_was_altered().await? {
                seen.clear();
            }
            let mut left = std::mem::take(&mut suspects);
            while !left.is_empty() {
                let some = first(&mut left, MAX_CALL);
                self.pace.take(some.len() as u64).await;
                for (verdict, (key, met), look) in self.judged(window, some, Depth::Everything).await? {
                    match verdict {
                        Verdict::Differs(kind) => {
                            let signature = signature(kind, &look);
                            if seen.insert(key.clone(), signature) == Some(signature) {
                                self.report(window, key, &met, &look, kind);
                            } else {
                                suspects.insert(key, met);
                            }
                        }
                        verdict => self.settle(verdict, key, met, late),
                    }
                }
                self.tell_now_and_then().await?;
            }
        }
        suspects.iter().for_each(|_| self.progress.count(Verdict::Moving));
        Ok(())
    }

    /// Judges what waited for the end of the log: who is not there was deleted, if an event says so.
    async fn after_the_log(&mut self, window: &mut Window<'_>, mut late: Records) -> Result<(), VerifyError> {
        while !late.is_empty() {
            let mut some = first(&mut late, MAX_CALL);
            let mut seen: BTreeMap<KeyBytes, Signature> = BTreeMap::new();
            for _ in 0..2 {
                if some.is_empty() {
                    break;
                }
                self.pace.take(some.len() as u64).await;
                if self.table_was_altered().await? {
                    seen.clear();
                }
                let judged = self.judged(window, std::mem::take(&mut some), Depth::Everything).await?;
                let mut looks: BTreeMap<KeyBytes, Look> = BTreeMap::new();
                for (verdict, (key, met), look) in judged {
                    match verdict {
                        // Whatever it was, what differs now has differed for long.
                        Verdict::AfterTheLog | Verdict::Differs(_) => {
                            looks.insert(key.clone(), look);
                            some.insert(key, met);
                        }
                        verdict => self.progress.count(verdict),
                    }
                }
                self.read_to_the_end(window, &mut late, &mut some).await?;
                for (key, met) in std::mem::take(&mut some) {
                    let Some(look) = looks.remove(&key) else { continue };
                    let look = Look { is_newest: true, ..look };
                    match judge(&Schema(&self.table.schema), &met.logged, &look) {
                        Verdict::Differs(kind) => {
                            let signature = signature(kind, &look);
                            if seen.insert(key.clone(), signature) == Some(signature) {
                                self.report(window, key, &met, &look, kind);
                            } else {
                                some.insert(key, met);
                            }
                        }
                        verdict => self.progress.count(verdict),
                    }
                }
                sleep(LOOK_AGAIN[0]).await;
            }
            some.iter().for_each(|_| self.progress.count(Verdict::Moving));
            self.tell_now_and_then().await?;
        }
        Ok(())
    }

    /// Reads the log up to its present end, and takes out those of which it has something newer.
    async fn read_to_the_end(
        &mut self,
        window: &mut Window<'_>,
        late: &mut Records,
        some: &mut Records,
    ) -> Result<(), VerifyError> {
        let at = window.partition().clone();
        let patience = Patience::new();
        let bounds = loop {
            match self.core.log.bounds(std::slice::from_ref(&at)).await {
                Ok(bounds) => break bounds,
                Err(error) => patience.after(error.into()).await?,
            }
        };
        let before = window.next();
        window.reaches(bounds.first().map_or(before, |(_, end)| *end));
        while !window.is_read() {
            let stretch = self.read(window).await?;
            // They are beyond what was asked for.
            self.progress.read -= stretch.records;
            self.pace.take(stretch.records).await;
            forget_superseded(late, &stretch);
            forget_superseded(some, &stretch);
        }
        Ok(())
    }

    /// Looks at the table again, since nobody notices at once when it is altered: a difference may be no more than that.
    async fn table_was_altered(&mut self) -> Result<bool, VerifyError> {
        let CatalogTable { schema, enabled, settings, index, .. } = &*self.table;
        let entry = CatalogEntry { table: schema.table.clone(), enabled: *enabled, settings: settings.clone() };
        let patience = Patience::new();
        let now = loop {
            match self.core.directory.introspect(&entry).await {
                Ok(schema) => break schema,
                Err(error) => patience.after(VerifyError::Store(error.into())).await?,
            }
        };
        if now == *schema {
            return Ok(false);
        }
        self.table = Arc::new(CatalogTable::new(now, *enabled, settings.clone(), index.clone()));
        Ok(true)
    }

    /// Looks at records, and says what follows.
    async fn judged(
        &self,
        window: &Window<'_>,
        records: Records,
        depth: Depth,
    ) -> Result<Vec<(Verdict, (KeyBytes, Met), Look)>, VerifyError> {
        let place = Place { core: self.core, table: &self.table, partition: window.partition() };
        let wanted: Vec<(&KeyBytes, &Met)> = records.iter().collect();
        let patience = Patience::new();
        let looks = loop {
            match place.look(&wanted, depth).await {
                Ok(looks) => break looks,
                Err(error) => patience.after(error).await?,
            }
        };
        let schema = Schema(&self.table.schema);
        Ok(records
            .into_iter()
            .zip(looks)
            .map(|((key, met), look)| (judge(&schema, &met.logged, &look), (key, met), look))
            .collect())
    }

    /// Counts a record that does not differ, or keeps it for the end of the log.
    fn settle(&mut self, verdict: Verdict, key: KeyBytes, met: Met, late: &mut Records) {
        if verdict == Verdict::AfterTheLog && met.reaches_back && late.len() < MAX_LATE {
            late.insert(key, met);
        } else {
            self.progress.count(verdict);
        }
    }

    fn report(&mut self, window: &Window<'_>, key: KeyBytes, met: &Met, look: &Look, kind: DifferenceKind) {
        if self.listed.contains(&key) {
            return;
        }
        self.progress.count(Verdict::Differs(kind));
        if self.listed.len() < self.max_listed {
            let (table, shard) = (&self.table.schema.table, window.shard());
            tracing::warn!(%table, %shard, offset = met.offset, version = %met.logged.version, ?kind, "a record differs");
            self.listed.insert(key);
            self.untold.push(Difference::of(&self.table.schema, shard, met, look, kind));
        }
    }

    async fn tell_now_and_then(&mut self) -> Result<(), VerifyError> {
        if self.untold.len() >= MAX_CALL || self.told_at.elapsed() >= TELL_EVERY {
            self.tell(false).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, is_complete: bool) -> Result<(), VerifyError> {
        let differences = std::mem::take(&mut self.untold);
        let told = Told { progress: self.progress, differences, is_complete };
        self.told_at = Instant::now();
        self.tell.send_timeout(told, TAKEN_WITHIN).await.map_err(|_| VerifyError::NobodyListens)
    }
}

fn signature(kind: DifferenceKind, look: &Look) -> Signature {
    let image = |hot: &Hot| match &hot.slot {
        HotSlot::Slot(hot_store::Slot::Image { version, stage, .. }) => Some((*version, *stage)),
        _ => None,
    };
    (kind, image(&look.after), law::version_of(&look.row))
}

/// Takes out the first ones.
fn first(records: &mut Records, count: usize) -> Records {
    match records.keys().nth(count).cloned() {
        Some(rest) => {
            let rest = records.split_off(&rest);
            std::mem::replace(records, rest)
        }
        None => std::mem::take(records),
    }
}

/// Whether the log has just deleted what was to be read.
async fn begins_behind<L: LogReader>(log: &L, window: &Window<'_>) -> bool {
    let bounds = log.bounds(std::slice::from_ref(window.partition())).await;
    bounds.is_ok_and(|bounds| bounds.first().is_some_and(|(low, _)| *low > window.next()))
}

/// How long is waited for a store that is away.
struct Patience {
    began: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// Waits before it is asked again; fails if that helps no more.
    async fn after(&self, error: VerifyError) -> Result<(), VerifyError> {
        if !error.is_passing() || self.began.elapsed() >= PATIENCE {
            return Err(error);
        }
        sleep(ASK_AGAIN).await;
        Ok(())
    }
}
