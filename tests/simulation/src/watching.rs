//! Those who watch tables and keys: what they are told, and what they must have been told in the end.

use std::{
    collections::BTreeMap,
    fmt,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use history::{Level, Operation, Outcome, Told};
use ingest_svc::watch::{self, WatchError, WatchRequest, WatchToken};
use model::Operation as ChangeOperation;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{nature::lock, workload::image, world::World};

/// Between two watches of the same watcher, at most.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a watcher stays with one replica, at most.
const STAYS: Duration = Duration::from_millis(1200);
/// How long a watcher that is slow does something else between two messages, at most.
const SLOW: Duration = Duration::from_millis(120);
/// Bytes of the events of a message: one or two.
const MESSAGE: usize = 100;
/// When all has come to rest, everything was told within that.
const TOLD_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// All watchers of a run.
pub(crate) struct Watchers {
    world: Arc<World>,
    all: Vec<Arc<Watcher>>,
    tasks: JoinSet<()>,
}

impl Watchers {
    pub(crate) fn start(world: &Arc<World>) -> Self {
        let mut watchers = Self { world: world.clone(), all: Vec::new(), tasks: JoinSet::new() };
        for number in 0..world.nature.climate().watchers {
            let watcher = Arc::new(Watcher::new(number, world));
            watchers.all.push(watcher.clone());
            watchers.tasks.spawn(watcher.run(world.clone()));
        }
        watchers
    }

    /// Each has been told of all that it was promised, now that everything has come to rest.
    pub(crate) async fn have_been_told(self) {
        let missing = || self.all.iter().find_map(|watcher| watcher.lacks(&self.world));
        let deadline = Instant::now() + TOLD_WITHIN;
        while let Some(missing) = missing() {
            if Instant::now() > deadline {
                return self.world.complain(missing);
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// One who watches a table, or some of its records.
struct Watcher {
    number: u64,
    table: usize,
    /// The places of the records; none: all of the table.
    records: Vec<usize>,
    is_slow: bool,
    known: Mutex<Known>,
}

/// What a watcher knows, across all watches that go on where the one before has ended.
#[derive(Debug, Default)]
struct Known {
    /// Since when it is told of everything.
    since: Option<u64>,
    /// Where it goes on.
    token: Option<WatchToken>,
    /// The newest version of each record that it was told.
    newest: BTreeMap<String, u64>,
}

/// Why a watcher does not stay.
#[derive(Debug)]
enum Left {
    Told(WatchError),
    ReplicaDied,
    Itself,
}

impl fmt::Display for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watcher {}", self.number)
    }
}

impl Watcher {
    fn new(number: u64, world: &World) -> Self {
        let nature = &world.nature;
        let table = nature.pick(0..world.tables.len() as u64) as usize;
        let of_table = |at: &usize| world.records[*at].table == table;
        let mut records = Vec::new();
        if nature.happens(0.3) {
            records.extend((0..world.records.len()).filter(of_table).filter(|_| nature.happens(0.5)));
        }
        Self { number, table, records, is_slow: nature.happens(0.3), known: Mutex::default() }
    }

    /// Watches for ever, now here and now there.
    async fn run(self: Arc<Self>, world: Arc<World>) {
        loop {
            sleep(world.nature.up_to(PAUSE)).await;
            let left = self.watch(&world).await;
            world.nature.note(|| format!("WATCHER {} has left: {left:?}", self.number));
            if let Left::Told(error) = left {
                self.is_told_why(&world, error);
            }
        }
    }

    /// An error that can be, or is a finding.
    fn is_told_why(&self, world: &World, error: WatchError) {
        match error {
            WatchError::Store(_) | WatchError::LogDown(_) => {}
            // What is read may be deleted meanwhile; who comes again is told that the token is of no use.
            WatchError::LogUnfit(_) if !world.keeps_drained => {}
            WatchError::Expired(_) if !world.keeps_drained => *lock(&self.known) = Known::default(),
            error => world.complain(format!("{self} was told: {error}")),
        }
    }

    /// Watches at one replica.
    async fn watch(&self, world: &World) -> Left {
        let nature = &world.nature;
        let replica = world.ready_replica().await;
        let from = lock(&self.known).token.clone();
        let is_resumed = from.is_some();
        let request = WatchRequest {
            table: world.tables[self.table].name.clone(),
            keys: self.records.iter().map(|&at| World::key_row(&world.records[at])).collect(),
            columns: Vec::new(),
            from,
            max_bytes: MESSAGE,
        };
        let leaves = Instant::now() + nature.up_to(STAYS);
        let (tell, mut told) = mpsc::channel(1);
        let (watcher, never) = (replica.watcher(), CancellationToken::new());
        let mut watching = pin!(watcher.watch(&request, &tell, &never));
        let mut listening = Listening { newest: BTreeMap::new(), is_live: !is_resumed, is_first: true };
        loop {
            tokio::select! {
                biased;
                () = replica.process.died() => return Left::ReplicaDied,
                Some(told) = told.recv() => self.listen(world, &mut listening, told),
                error = &mut watching => return Left::Told(error),
                () = sleep_until(leaves) => return Left::Itself,
            }
            if self.is_slow {
                sleep(nature.up_to(SLOW)).await;
            }
        }
    }

    /// Takes a message in.
    fn listen(&self, world: &World, listening: &mut Listening, told: watch::Told) {
        let watch::Told { changes, token, is_live } = told;
        if listening.is_first && !changes.is_empty() {
            world.complain(format!("{self} was told of changes in the first message: {changes:?}"));
        }
        if listening.is_live && !is_live {
            world.complain(format!("{self} was told to be behind, when it had come up"));
        }
        (listening.is_first, listening.is_live) = (false, is_live);
        for change in changes {
            self.take(world, listening, change);
        }
        let mut known = lock(&self.known);
        known.since.get_or_insert_with(|| world.tick());
        // Not always: who dies before that is told once more.
        if known.token.is_none() || world.nature.happens(0.7) {
            known.token = Some(token);
        }
    }

    fn take(&self, world: &World, listening: &mut Listening, change: watch::Change) {
        world.nature.note(|| format!("WATCHER {} is told {change:?}", self.number));
        let is_it = |at: &&usize| World::key_row(&world.records[**at]) == change.key;
        let of_table: Vec<usize> =
            (0..world.records.len()).filter(|at| world.records[*at].table == self.table).collect();
        let Some(record) = of_table.iter().find(is_it).map(|at| (at, &world.records[*at])) else {
            return world.complain(format!("{self} was told of a record that there is not: {change:?}"));
        };
        let (at, record) = record;
        let version = change.version.get();
        if !self.records.is_empty() && !self.records.contains(at) {
            world.complain(format!("{self} was told of a record that it did not ask for: {change:?}"));
        }
        if let Some(before) = listening.newest.insert(record.name.clone(), version).filter(|before| *before >= version)
        {
            world.complain(format!("{self} was told of {} at {before} and then {change:?}", record.name));
        }
        if change.row.is_none() != (change.operation == ChangeOperation::Delete) {
            world.complain(format!("{self} was told of what can't be: {change:?}"));
        }
        let row = change.row.as_ref().map(image);
        if row == Some(None) {
            return world.complain(format!("{self} was told of a row without its columns: {change:?}"));
        }
        let (at, epoch) = (world.tick(), change.etag.epoch.0);
        lock(&world.history).told.push(Told { key: record.name.clone(), at, version, epoch, row: row.flatten() });
        let mut known = lock(&self.known);
        let newest = known.newest.entry(record.name.clone()).or_default();
        *newest = version.max(*newest);
    }

    /// What it was promised to be told and was not, if anything.
    fn lacks(&self, world: &World) -> Option<String> {
        let known = lock(&self.known);
        let Some(since) = known.since else { return Some(format!("{self} was told nothing at all")) };
        let history = lock(&world.history);
        let last_loss = history.losses.iter().map(|loss| loss.span.to).max().unwrap_or_default();
        let mut records = world.records.iter().enumerate().filter(|(at, record)| {
            record.table == self.table && (self.records.is_empty() || self.records.contains(at))
        });
        // What was under way when it began may have been in the log before.
        let promised = |operation: &&Operation| match operation.outcome {
            Outcome::Acked { level, .. } => {
                operation.span.from > since && (level >= Level::Queued || operation.span.from > last_loss)
            }
            _ => false,
        };
        records.find_map(|(_, record)| {
            let newest = known.newest.get(&record.name).copied().unwrap_or_default();
            let mut of_record = history.operations.iter().filter(|operation| operation.key == record.name);
            let lacking = of_record.find(|op| promised(op) && op.acked_version() > Some(newest))?;
            Some(format!("{self} was told of {} up to {newest} since {since}, and not of {lacking}", record.name))
        })
    }
}

/// What is known of one watch.
struct Listening {
    /// The newest version of each record.
    newest: BTreeMap<String, u64>,
    is_live: bool,
    is_first: bool,
}
