//! The one task that writes a lane.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::{
    Applied, Batch, CatalogEntry, CatalogTable, Change, Database, DatabaseError, ErrorClass, Owner, ShardClaim,
};
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
    refusal::{Refusal, of_the_database, since_refused, without_values},
};
use crate::{
    TableOptions,
    backoff::Backoff,
    breaker::{Breaker, Closing},
    budget::{Gate, Leave},
    dead_letter::Undeliverable,
    gather::{Entry, GivenUp, Lane, Limits, Reason, Ticket, Verdict},
    parts::{Parts, Report},
    status::TableMetrics,
};

/// Groups of records (of one shard and transaction) that are written and not marked clean; past it the lane waits.
const UNMARKED_GROUPS: usize = 256;

/// After so many failures in a row that nobody understands, while the database answers, a row is taken to be in the way.
const UNCLEAR_AT_MOST: u32 = 3;

/// After so many rows in a row that ask, each alone, for another table than the one that is there, it is the table that
/// has drifted: the lane pauses rather than set aside one row after the other.
const MISFITS_AT_MOST: u32 = 3;

/// What a writer does after an attempt.
enum Next {
    AtOnce,
    After(Duration),
    Stop,
}

/// Writes the batches of one lane, one transaction after the other. Every attempt, the first or a later one, goes the
/// same way: due, budget, newest versions, transaction; so what waits for another attempt goes on coalescing.
pub(crate) struct Writer<H, D> {
    lane: Arc<Lane>,
    /// The table's.
    name: Arc<TableRef>,
    parts: Arc<Parts<H, D>>,
    gate: Arc<Gate<H>>,
    options: TableOptions,
    metrics: TableMetrics,
    stop: CancellationToken,
    backoff: Backoff,
    /// Failures in a row that nobody understands.
    unclear: u32,
    /// Rows in a row that asked, each alone, for another table.
    misfits: u32,
    /// Whether it has told that the table has drifted.
    has_drifted: bool,
    /// When the table was last looked at and found to be what batches are made for.
    found_as_known: Option<Instant>,
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
        let coalesced = tickets.iter().map(|ticket| ticket.records.len() - 1).sum();
        let metrics = self.parts.metrics.of(&self.metrics);
        metrics.committed(written, stale, took);
        metrics.coalesced(coalesced);
        self.parts.board.wrote(&table.schema.table, written);

        let fingerprint = table.schema.fingerprint();
        let mut groups: BTreeMap<Shard, Cleaning> = BTreeMap::new();
        for ((change, ticket), applied) in changes.into_iter().zip(tickets).zip(applied) {
            let key = ticket.key.clone();
            let Some(clean) = cleaning::mark(&change, applied, key, &table.settings.namespace, fingerprint) else {
                self.give_up(Entry { change, ticket }, since_refused());
                continue;
            };
            if ticket.failures > 0 {
                tracing::info!(
                    table = %table.schema.table, shard = %change.shard, version = %change.version,
                    "a row that was held has been written"
                );
            }
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
        for group in groups.into_values() {
            let (parts, lane, metrics) = (self.parts.clone(), self.lane.clone(), self.metrics.clone());
            self.cleaning.spawn(group.run(parts, lane, metrics, self.options.ttl));
        }
    }

    /// Puts a batch back as its error demands.
    async fn refused(
        &mut self,
        table: &CatalogTable,
        way: Refusal,
        error: &DatabaseError,
        batch: Vec<Entry>,
        owners: &[(Shard, Owner)],
    ) -> Next {
        self.parts.metrics.of(&self.metrics).retry(way.name());
        self.parts.board.failed(&table.schema.table, &without_values(error));
        if planted::is(Bug::DropRefused) && self.backoff.failures() + batch[0].ticket.failures >= 3 {
            let (changes, tickets): (Vec<_>, Vec<_>) = batch.into_iter().map(|e| (e.change, e.ticket)).unzip();
            for (change, ticket) in changes.iter().zip(&tickets) {
                self.lane.with(|gathered| gathered.release(change.shard, ticket));
            }
            self.count_as_done(&changes, &tickets).await;
            return Next::AtOnce;
        }
        match way {
            Refusal::Rows => {
                self.single_out(batch, error).await;
                return Next::AtOnce;
            }
            // Some rows ask for another table than the one that is there; the others needn't wait for them. Should it
            // be all of them after all, they are not tried one after the other as fast as can be.
            Refusal::Schema if self.is_as_known(table).await => {
                self.misfits += u32::from(batch.len() == 1);
                self.single_out(batch, error).await;
                if self.misfits < MISFITS_AT_MOST {
                    return Next::After(self.backoff.delay_after(0));
                }
                self.drifted(error);
                return Next::After(self.backoff.next_delay());
            }
            Refusal::Schema => self.drifted(error),
            // A statement that breaks its connection each time would be in the way of all others for ever.
            Refusal::Unclear if self.unclear >= UNCLEAR_AT_MOST => {
                self.single_out(batch, error).await;
                return Next::After(self.backoff.delay_after(0));
            }
            Refusal::Away | Refusal::Later | Refusal::Unclear | Refusal::NotOwner => {}
        }
        let table = &self.lane.table.schema.table;
        // Of an outage the breaker tells, once.
        if self.backoff.failures() == 0 && !matches!(way, Refusal::Away | Refusal::Schema) {
            let (lane, rows, error) = (self.lane.index, batch.len(), without_values(error));
            tracing::warn!(%table, lane, rows, error, "a batch did not get through; trying until it does");
        }
        self.lane.with(|gathered| gathered.put_back(batch, Verdict::Innocent, Instant::now()));
        self.parts.report(Report::Room { lane: self.lane.clone() }).await;
        match way {
            Refusal::NotOwner => self.take_ownership_again(owners).await,
            // The breaker says when.
            Refusal::Away => return Next::AtOnce,
            _ => {}
        }
        Next::After(self.backoff.next_delay())
    }

    /// The lane pauses, looks at the table again and again, and goes on once it takes something.
    fn drifted(&mut self, error: &DatabaseError) {
        let table = &self.lane.table.schema.table;
        let error = without_values(error);
        if !std::mem::replace(&mut self.has_drifted, true) {
            tracing::warn!(
                %table, lane = self.lane.index, error,
                "the table is not what records were accepted for; it is not written until it is, and nothing is given up: \
                 put back what was dropped or renamed, give what was added a default, or grant what is missing"
            );
        }
        self.parts.board.drifted(table, Some(&error));
    }

    /// Finds the rows of a batch that are in the way of the others.
    async fn single_out(&self, mut batch: Vec<Entry>, error: &DatabaseError) {
        match batch.pop() {
            Some(alone) if batch.is_empty() => {
                let patience = self.parts.options.dependent_patience;
                match of_the_database(error, alone.dependent_for(Instant::now()) >= patience) {
                    Some(reason) => {
                        self.lane.with(|gathered| gathered.found_among(&alone.ticket));
                        self.give_up(alone, reason);
                    }
                    None => self.hold(alone, error),
                }
            }
            last => {
                batch.extend(last);
                self.lane.with(|gathered| gathered.put_back(batch, Verdict::Suspect, Instant::now()));
            }
        }
        self.parts.report(Report::Room { lane: self.lane.clone() }).await;
    }

    /// Looks at the table again. `false` if it is not what the batch was made for (the next one is), or can't be looked
    /// at: then no row is to blame.
    async fn is_as_known(&mut self, used: &CatalogTable) -> bool {
        let directory = &self.parts.directory;
        let is_recent = |at: Instant| at.elapsed() < self.parts.options.table_refresh;
        if !self.has_drifted && self.found_as_known.is_some_and(is_recent) {
            return true;
        }
        let entry =
            CatalogEntry { table: used.schema.table.clone(), enabled: used.enabled, settings: used.settings.clone() };
        let refreshed = match directory.introspect(&entry).await {
            Ok(schema) if schema == used.schema => {
                self.found_as_known = Some(Instant::now());
                return true;
            }
            Ok(_) => directory.refresh(true).await.map(|_| ()),
            Err(error) => Err(error),
        };
        self.found_as_known = None;
        if let Err(error) = refreshed {
            let table = &used.schema.table;
            tracing::debug!(%table, error = without_values(&error), "the table could not be looked at again");
        }
        false
    }

    /// Tells the consumer that these are done, which a planted bug does before they are.
    async fn count_as_done(&self, changes: &[Change], tickets: &[Ticket]) {
        for (change, ticket) in changes.iter().zip(tickets) {
            let (shard, generation) = (change.shard, ticket.generation);
            let done = Report::done(self.lane.clone(), shard, generation, std::slice::from_ref(ticket));
            self.parts.report(done).await;
        }
    }

    /// A row that the database refuses by itself, and may take later, is tried again alone: only its own partition's
    /// progress waits for it.
    fn hold(&self, entry: Entry, why: &DatabaseError) {
        let table = &self.lane.table.schema.table;
        let Change { shard, version, .. } = entry.change;
        if entry.ticket.failures == 0 {
            let offset = entry.ticket.records.iter().map(|(_, offset)| *offset).min();
            tracing::warn!(
                %table, %shard, %version, offset, error = without_values(why),
                "a row is refused by the database; it is set aside and tried again, and all others go on"
            );
        }
        self.parts.metrics.of(&self.metrics).refused();
        let until = Instant::now() + self.backoff.delay_after(entry.ticket.failures);
        let verdict = match why.class() {
            ErrorClass::Dependent => Verdict::DependentUntil(until),
            ErrorClass::Permanent
            | ErrorClass::Schema
            | ErrorClass::Transient
            | ErrorClass::Contended
            | ErrorClass::Unclassified => Verdict::HeldUntil(until),
        };
        self.lane.with(|gathered| gathered.put_back(vec![entry], verdict, Instant::now()));
    }

    /// A row that the database refuses for good: the next older version of its record that was gathered with it takes
    /// its place. Only when one of them has landed, or none is left, the refused ones go to the dead letters: until then
    /// the horizon waits for all of them.
    fn give_up(&self, entry: Entry, reason: Reason) {
        let (table, now) = (&self.lane.table.schema.table, Instant::now());
        let Change { shard, version, .. } = entry.change;
        tracing::error!(
            %table, %shard, %version, cause = reason.cause.name(), why = reason.message,
            "a row is refused by the database for good; it goes to the dead letters, and all others go on"
        );
        self.parts.metrics.of(&self.metrics).refused();
        match entry.give_up(reason, now) {
            GivenUp::UpTo(next) => self.lane.with(|gathered| gathered.put_back(vec![next], Verdict::Innocent, now)),
            GivenUp::Wholly(Entry { change, ticket }) => {
                self.lane.give_up(Undeliverable::Refused { shard: change.shard, ticket });
            }
        }
    }

    /// Only for assignments that still stand: a former owner must not take a shard back from the present one.
    async fn take_ownership_again(&self, owners: &[(Shard, Owner)]) {
        let table = &self.lane.table.schema.table;
        let Some(database) = self.parts.directory.database(&table.database) else { return };
        let mut claims: BTreeMap<&str, (&Owner, Vec<ShardClaim>)> = BTreeMap::new();
        for (shard, owner) in owners {
            if self.lane.with(|gathered| gathered.owner(*shard) == Some(owner)) {
                let (_, claims) = claims.entry(&owner.0).or_insert_with(|| (owner, Vec::new()));
                claims.push(ShardClaim { table: table.table.clone(), shard: *shard });
            }
        }
        for (owner, claims) in claims.into_values() {
            if let Err(error) = database.take_ownership(&claims, owner).await {
                tracing::warn!(%table, error = without_values(&error), "shards could not be taken over again");
            }
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
