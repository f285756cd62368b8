//! What a writer does with a batch that the database refused.

use std::collections::BTreeMap;

use database::{CatalogEntry, CatalogTable, Change, Database, DatabaseError, ErrorClass, Owner, ShardClaim};
use hot_store::{Budget, HotStore};
use model::Shard;
use planted::Bug;
use tokio::time::Instant;

use super::{
    refusal::{Refusal, of_the_database, without_values},
    writer::{Next, Writer},
};
use crate::{
    dead_letter::Undeliverable,
    gather::{Entry, GivenUp, Reason, Verdict},
    parts::Report,
};

/// After so many failures in a row that nobody understands, while the database answers, a row is taken to be in the way.
const UNCLEAR_AT_MOST: u32 = 3;

/// After so many rows in a row that ask, each alone, for another table than the one that is there, it is the table that
/// has drifted: the lane pauses rather than set aside one row after the other.
const MISFITS_AT_MOST: u32 = 3;

impl<H: HotStore + Budget, D: Database> Writer<H, D> {
    /// Puts a batch back as its error demands.
    pub(super) async fn refused(
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
            Some(alone) if batch.is_empty() && alone.is_step() => self.no_step(alone),
            Some(alone) if batch.is_empty() => match of_the_database(error, self.was_patient(&alone)) {
                Some(reason) => {
                    self.lane.with(|gathered| gathered.found_among(&alone.ticket));
                    self.give_up(alone, reason);
                }
                None => self.hold(alone, error),
            },
            last => {
                batch.extend(last);
                self.lane.with(|gathered| gathered.put_back(batch, Verdict::Suspect, Instant::now()));
            }
        }
        self.parts.report(Report::Room { lane: self.lane.clone() }).await;
    }

    /// Whether another row was waited for long enough: for the time that is set, and until its database has all that was
    /// accepted before, for that may bring the other row. Where those that wait take up the lane's room, that may not come
    /// in; then the time is all.
    fn was_patient(&self, entry: &Entry) -> bool {
        let options = &self.parts.options;
        if !entry.is_overdue(options.dependent_patience, Instant::now()) {
            return false;
        }
        let (records, bytes) = (options.lane_capacity, options.lane_bytes(&self.options));
        self.parts.fronts.have_reached(&self.name, entry.change.shard, entry.lowest())
            || self.lane.with(|gathered| gathered.is_clogged(entry, records, bytes))
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

    /// An older version that was to go before the newest one of its key is refused, for whatever reason: that says nothing of
    /// the newest.
    pub(super) fn no_step(&self, entry: Entry) {
        self.parts.metrics.of(&self.metrics).refused();
        self.lane.with(|gathered| gathered.put_back(vec![entry], Verdict::NoStep, Instant::now()));
    }

    /// A row that the database refuses for good: the next older version of its record that was gathered with it takes
    /// its place. Only when one of them has landed, or none is left, the refused ones go to the dead letters: until then
    /// the horizon waits for all of them.
    pub(super) fn give_up(&self, entry: Entry, reason: Reason) {
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
