//! The drain as a whole.

use std::sync::Arc;

use database::{Database, TableDirectory};
use event_log::{EventPublisher, EventSource, LogError};
use hot_store::{Budget, HotStore};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    DrainOptions,
    breaker::{Breakers, probe_when_open},
    budget::{Gates, Pulse, follow_rates, heed_database},
    consume::{Consumer, refresh_tables},
    horizon::{Fronts, note_horizons, purge_tombstones, watch_fronts},
    parts::Parts,
    status::{Board, Metrics, report_board},
};

/// Reports to the consumer that are under way at once; who has another waits.
const REPORTS: usize = 1024;

/// Why a drain ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The event log can't be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A defect of ours. What was not done is redelivered.
    #[error("a part of the drain panicked: {0}")]
    Panicked(String),
}

/// What a drain works on.
pub struct DrainParts<H, S, P, D> {
    /// Where records are marked clean, and the budget comes from.
    pub hot: Arc<H>,
    /// This member of the drain group.
    pub source: S,
    /// The event log's writing face: where dead letters go.
    pub log: Arc<P>,
    /// The databases and the enabled tables.
    pub directory: Arc<TableDirectory<D>>,
    /// What was set.
    pub options: DrainOptions,
}

/// One drain replica: carries the events of its share of the partitions into the database.
pub struct Drain<H, S, P, D> {
    parts: DrainParts<H, S, P, D>,
    board: Board,
}

impl<H: HotStore + Budget, S: EventSource, P: EventPublisher, D: Database> Drain<H, S, P, D> {
    /// Nothing is asked or started yet.
    pub fn new(parts: DrainParts<H, S, P, D>) -> Self {
        Self { parts, board: Board::default() }
    }

    /// What it knows about itself, before, while and after it runs.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Drains until `shutdown`; then finishes what is in a transaction, commits how far it came and leaves the group,
    /// within [`DrainOptions::shutdown_deadline`].
    ///
    /// A store that is away is waited for, without end. If the future is dropped it is as if the process had been
    /// killed, but for transactions under way, which run to their end.
    ///
    /// # Errors
    /// [`DrainError`] if the event log refuses this member for good. What was not done is redelivered to another. A
    /// last commit that fails, while the group shares its partitions anew or the log is away, is none.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), DrainError> {
        let DrainParts { hot, source, log, directory, options } = self.parts;
        let (reports, inbox) = mpsc::channel(REPORTS);
        let meter = opentelemetry::global::meter("shock_absorber.drain");
        let stop = CancellationToken::new();
        let pulses = options.adaptive.keys().map(|name| (name.clone(), Pulse::default())).collect();
        let breakers = Breakers::new(&directory, &options);
        let parts = Arc::new(Parts {
            hot,
            directory,
            post: log,
            options,
            gates: Gates::default(),
            pulses,
            breakers,
            fronts: Fronts::default(),
            metrics: Metrics::new(&meter),
            board: self.board,
            reports,
            stop,
        });
        let mut tasks = JoinSet::new();
        for breaker in parts.breakers.all() {
            tasks.spawn(probe_when_open(parts.clone(), breaker.clone()));
        }
        tasks.spawn(follow_rates(parts.clone()));
        for (database, bounds) in &parts.options.adaptive {
            tasks.spawn(heed_database(parts.clone(), database.clone(), *bounds));
        }
        tasks.spawn(refresh_tables(parts.clone()));
        tasks.spawn(report_board(parts.clone()));
        tasks.spawn(note_horizons(parts.clone()));
        tasks.spawn(purge_tombstones(parts.clone()));
        tasks.spawn(watch_fronts(parts.clone()));
        Consumer::new(parts, source, inbox, tasks).run(shutdown).await
    }
}
