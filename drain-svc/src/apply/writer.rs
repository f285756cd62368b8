//! The one task that writes a lane.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::{Applied, Batch, CatalogTable, Change, Database, DatabaseError, Owner};
use hot_store::{Budget, HotStore};
use model::{Shard, TableRef};
use planted::Bug;
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{
    cleaning::{self, Cleaning},
    refusal::{Refusal, since_refused},
};
use crate::{
    TableOptions,
    backoff::Backoff,
    breaker::{Breaker, Closing},
    budget::{Gate, Leave},
    gather::{Entry, Lane, Limits, Ticket},
    parts::{Parts, Report},
    status::TableMetrics,
};

/// Groups of records (of one shard and transaction) that are written and not marked clean; past it the lane waits.
const UNMARKED_GROUPS: usize = 256;

/// What a writer does after an attempt.
pub(super) enum Next {
    AtOnce,
    After(Duration),
    Stop,
}

/// Writes the batches of one lane, one transaction after the other. Every attempt, the first or a later one, goes the
/// same way: due, budget, newest versions, transaction; so what waits for another attempt goes on coalescing.
pub(crate) struct Writer<H, D> {
    pub(super) lane: Arc<Lane>,
    /// The table's.
    pub(super) name: Arc<TableRef>,
    pub(super) parts: Arc<Parts<H, D>>,
    gate: Arc<Gate<H>>,
    pub(super) options: TableOptions,
    pub(super) metrics: TableMetrics,
    stop: CancellationToken,
    pub(super) backoff: Backoff,
    /// Failures in a row that nobody understands.
    pub(super) unclear: u32,
    /// Rows in a row that asked, each alone, for another table.
    pub(super) misfits: u32,
    /// Whether it has told that the table has drifted.
    pub(super) has_drifted: bool,
    /// When the table was last looked at and found to be what batches are made for.
    pub(super) found_as_known: Option<Instant>,
    cleaning: JoinSet<()>,
}

impl<H: HotStore + Budget, D: Database> Writer<H, D> {
    pub(crate) fn new(
        lane: Arc<Lane>,
        parts: Arc<Parts<H, D>>,
        gate: Arc<Gate<H>>,
        metrics: TableMetrics,
        stop: CancellationToken,
    ) -> Self {
        let options = parts.options.table(&lane.table.schema.table).clone();
        let backoff = parts.backoff();
        let name = Arc::new(lane.table.schema.table.clone());
        Self {
            lane,
            name,
            parts,
            gate,
            options,
            metrics,
            stop,
            backoff,
            unclear: 0,
            misfits: 0,
            has_drifted: false,
            found_as_known: None,
            cleaning: JoinSet::new(),
        }
    }

    /// Until it is stopped; then what is in a transaction is finished, and what only waits is left to be redelivered.
    pub(crate) async fn run(mut self) {
        loop {
            match self.write_one().await {
                Next::AtOnce => {}
                Next::After(pause) => tokio::select! {
                    biased;
                    () = self.stop.cancelled() => break,
                    () = time::sleep(pause) => {}
                },
                Next::Stop => break,
            }
        }
        while let Some(marked) = self.cleaning.join_next().await {
            surface_panic(marked);
        }
    }

    /// Waits for a batch and writes it.
    async fn write_one(&mut self) -> Next {
        let table = self.table();
        let limits = self.limits(&table);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Next::Stop,
                Some(marked) = self.cleaning.join_next() => surface_panic(marked),
                () = self.lane.due(limits), if self.cleaning.len() < UNMARKED_GROUPS => break,
            }
        }
        let Some(breaker) = self.breaker() else { return Next::After(self.backoff.next_delay()) };
        let closing = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Next::Stop,
            closing = breaker.closed() => closing,
        };
        let asked = Instant::now();
        let granted = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Next::Stop,
            // What was asked for meanwhile is given back: others could use it.
            () = breaker.opened() => return Next::AtOnce,
            granted = self.gate.pass(|| self.lane.due_rows(limits)) => granted,
        };
        self.parts.metrics.of(&self.metrics).budget_waited(asked.elapsed());
        let (batch, owners) = self.lane.with(|gathered| {
            let batch = gathered.take(granted.rows, limits, Instant::now());
            let mut shards: Vec<Shard> = batch.iter().map(|entry| entry.change.shard).collect();
            shards.sort_unstable();
            shards.dedup();
            let owner = |shard: Shard| gathered.owner(shard).map(|owner| (shard, owner.clone()));
            (batch, shards.into_iter().filter_map(owner).collect::<Vec<_>>())
        });
        if batch.is_empty() {
            return Next::AtOnce;
        }
        let (changes, tickets): (Vec<Change>, Vec<Ticket>) =
            batch.into_iter().map(|entry| (entry.change, entry.ticket)).unzip();
        if planted::is(Bug::CommitBeforeDatabase) {
            self.count_as_done(&changes, &tickets).await;
        }
        let begun = Instant::now();
        let (outcome, changes) = self.transact(&table, &owners, changes, granted.leave).await;
        let took = begun.elapsed();
        self.gate.ended(changes.len(), took, &outcome);
        match outcome {
            Ok(applied) => {
                breaker.answered();
                self.healed();
                self.committed(&table, changes, tickets, applied, took);
                Next::AtOnce
            }
            Err(error) => {
                self.parts.metrics.of(&self.metrics).failed(took);
                let entries = changes.into_iter().zip(tickets).map(|(change, ticket)| Entry { change, ticket });
                let way = self.met(&breaker, closing, &error).await;
                self.refused(&table, way, &error, entries.collect(), &owners).await
            }
        }
    }

    /// Whether its database takes writes; `None` if no such database is configured.
    fn breaker(&self) -> Option<Arc<Breaker>> {
        self.parts.breakers.of(&self.lane.table.schema.table.database).cloned()
    }

    /// Tells the breaker what an attempt has met, and answers what it means. What looks like an outage, and what nobody
    /// understands, may concern this table or this batch only (a table that is full, a statement that always breaks off):
    /// so the database is asked whether it takes writes at all.
    async fn met(&mut self, breaker: &Breaker, closing: Closing, error: &DatabaseError) -> Refusal {
        let way = Refusal::of(error);
        if !matches!(way, Refusal::Away | Refusal::Unclear) {
            breaker.answered();
            return way;
        }
        let Some(database) = self.parts.directory.database(&self.lane.table.schema.table.database) else { return way };
        match database.probe().await {
            Err(error) if error.class().may_pass() => {
                breaker.failed(closing, &error);
                Refusal::Away
            }
            Ok(()) | Err(_) => {
                self.unclear += 1;
                Refusal::Unclear
            }
        }
    }

    /// The table as it is now; as it was, once it is disabled.
    fn table(&self) -> Arc<CatalogTable> {
        let known = &self.lane.table;
        self.parts.directory.known(&known.schema.table).unwrap_or_else(|| known.clone())
    }

    fn limits(&self, table: &CatalogTable) -> Limits {
        let options = &self.options;
        let database = self.parts.directory.database(&table.schema.table.database);
        let most = database.map_or(1, |database| database.max_batch_rows(&table.schema).max(1));
        let rows = self.gate.batch_rows().min(most);
        Limits { rows, bytes: options.batch_bytes, age: options.batch_age }
    }

    /// One transaction, in a task of its own: nothing that ends this one can break it off half-way. The leave for it ends
    /// with it, before the hot store is told.
    async fn transact(
        &self,
        table: &Arc<CatalogTable>,
        owners: &[(Shard, Owner)],
        changes: Vec<Change>,
        leave: Option<Leave>,
    ) -> (Result<Vec<Applied>, DatabaseError>, Vec<Change>) {
        let name = &table.schema.table.database;
        let Some(database) = self.parts.directory.database(name).cloned() else {
            return (Err(DatabaseError::Unfit(format!("no database named {name} is configured"))), changes);
        };
        let changes = Arc::new(changes);
        let flight = self.parts.pulse(name).map(|pulse| pulse.begin(&self.name, changes.len()));
        let transaction = tokio::spawn({
            let (table, owners, changes) = (table.clone(), owners.to_vec(), changes.clone());
            async move {
                let outcome = database.apply(Batch { schema: &table.schema, owners, changes: &changes }).await;
                drop(leave);
                if let Some(flight) = flight {
                    flight.end(&outcome);
                }
                outcome
            }
        });
        let outcome = match transaction.await {
            Ok(Ok(applied)) if applied.len() != changes.len() => {
                let told = format!("it told of {} of {} changes", applied.len(), changes.len());
                Err(DatabaseError::Unknown(told))
            }
            Ok(outcome) => outcome,
            Err(panic) => Err(DatabaseError::Unknown(format!("the transaction broke off: {panic}"))),
        };
        (outcome, Arc::try_unwrap(changes).unwrap_or_else(|shared| shared.to_vec()))
    }

    fn healed(&mut self) {
        if self.backoff.failures() > 0 {
            tracing::info!(table = %self.lane.table.schema.table, lane = self.lane.index, "the database takes batches again");
            self.backoff.reset();
        }
        (self.unclear, self.misfits) = (0, 0);
        if std::mem::take(&mut self.has_drifted) {
            let table = &self.lane.table.schema.table;
            tracing::info!(%table, lane = self.lane.index, "the table fits again");
            self.parts.board.drifted(table, None);
        }
    }

    /// Tells the hot store, shard by shard and side by side with the next transaction.
    fn committed(
        &mut self,
        table: &CatalogTable,
        changes: Vec<Change>,
        tickets: Vec<Ticket>,
        applied: Vec<Applied>,
        took: Duration,
    ) {
        let written = applied.iter().filter(|a| matches!(a, Applied::Written)).count();
        let stale = applied.iter().filter(|a| matches!(a, Applied::Stale { .. })).count();
        let mut coalesced = 0;
        self.parts.metrics.of(&self.metrics).committed(written, stale, took);
        self.parts.board.wrote(&table.schema.table, written);

        let fingerprint = table.fingerprint();
        let mut groups: BTreeMap<Shard, Cleaning> = BTreeMap::new();
        for ((change, ticket), applied) in changes.into_iter().zip(tickets).zip(applied) {
            let key = ticket.key.clone();
            let Some(clean) = cleaning::mark(&change, applied, key, &table.settings.namespace, fingerprint) else {
                let entry = Entry { change, ticket };
                if entry.is_step() {
                    self.no_step(entry);
                } else {
                    self.give_up(entry, since_refused());
                }
                continue;
            };
            if ticket.failures > 0 {
                tracing::info!(
                    table = %table.schema.table, shard = %change.shard, version = %change.version,
                    "a row that was held has been written"
                );
            }
            let entry = Entry { change, ticket };
            if entry.goes_on() {
                let until = Instant::now() + self.backoff.delay_after(0);
                self.lane.with(|gathered| gathered.landed(entry, until));
                continue;
            }
            let Entry { change, mut ticket } = entry;
            ticket.forget_superseded(change.version);
            coalesced += ticket.records.len() - 1;
            let shard = change.shard;
            let group = groups.entry(shard).or_insert_with(|| Cleaning {
                shard,
                generation: ticket.generation,
                cleans: Vec::new(),
                tickets: Vec::new(),
            });
            group.cleans.push(clean);
            group.tickets.push(ticket);
        }
        self.parts.metrics.of(&self.metrics).coalesced(coalesced);
        for group in groups.into_values() {
            let (parts, lane, metrics) = (self.parts.clone(), self.lane.clone(), self.metrics.clone());
            self.cleaning.spawn(group.run(parts, lane, metrics, self.options.ttl));
        }
    }

    /// Tells the consumer that these are done, which a planted bug does before they are.
    pub(super) async fn count_as_done(&self, changes: &[Change], tickets: &[Ticket]) {
        for (change, ticket) in changes.iter().zip(tickets) {
            let (shard, generation) = (change.shard, ticket.generation);
            let done = Report::done(self.lane.clone(), shard, generation, std::slice::from_ref(ticket));
            self.parts.report(done).await;
        }
    }
}

/// A panic of a part is one of the whole: the drain ends, and its successor is delivered everything again.
fn surface_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
