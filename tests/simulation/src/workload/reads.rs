//! Reads, finds and evictions.

use history::{Action, Outcome, Refusal, Seen, Stamp};
use ingest_svc::{
    Etag,
    find::{FindError, Query},
    read::{Consistency, Found, Get, ReadError},
};
use model::Value;
use tokio::time::timeout;

use super::{Client, PATIENCE, image};
use crate::world::World;

/// Bytes of the answer to a batch of reads: of all of it now and then.
const ROOM: usize = 4096;

impl Client {
    /// Reads some records in one call; each is an operation of its own.
    pub(super) async fn read(&mut self, count: u64) {
        let places: Vec<usize> = (0..count).map(|_| self.world.any_record()).collect();
        let get = |at: &usize| {
            let record = &self.world.records[*at];
            let table = self.world.tables[record.table].name.clone();
            Get { table, key: World::key_row(record), columns: Vec::new(), consistency: Consistency::Newest }
        };
        let gets: Vec<Get> = places.iter().map(get).collect();
        let replica = self.world.ready_replica().await;
        let from = self.world.tick();
        let reader = replica.reader();
        let answers = tokio::select! {
            biased;
            () = replica.process.died() => None,
            answers = timeout(PATIENCE, reader.read_many(gets, ROOM)) => answers.ok(),
        };
        let mut answers = answers.unwrap_or_default().into_iter();
        for at in places {
            if let Some(outcome) = self.outcome_of_read(answers.next()) {
                if let Outcome::Read(Some(Seen { version, epoch: Some(epoch), .. })) = outcome {
                    self.etags.insert(at, Stamp { version, epoch });
                }
                self.record(at, Action::Read, from, None, outcome);
            }
        }
    }

    /// Finds a record by its value, which no other write has, between two reads of it. What is found is a read. If the record
    /// is the same before and afterwards, it must have been found.
    pub(super) async fn find(&mut self) {
        let at = self.world.any_record();
        let Some(before) = self.read_one(at).await else { return };
        let (from, found) = (self.world.tick(), self.find_by(at, before.image.value).await);
        let Some(found) = found else { return };
        let is_missing = found.is_empty();
        for found in found {
            if let Some(outcome) = self.outcome_of_read(Some(Ok(found))) {
                self.record(at, Action::Read, from, None, outcome);
            }
        }
        let after = self.read_one(at).await;
        if is_missing && after == Some(before) {
            self.world
                .complain(format!("{} was {before} all the while, and was not found", self.world.records[at].name));
        }
    }

    /// The row of a record, if it has one and can be read.
    async fn read_one(&mut self, at: usize) -> Option<Seen> {
        let record = &self.world.records[at];
        let table = self.world.tables[record.table].name.clone();
        let get = Get { table, key: World::key_row(record), columns: Vec::new(), consistency: Consistency::Newest };
        let replica = self.world.ready_replica().await;
        let from = self.world.tick();
        let reader = replica.reader();
        let answer = tokio::select! {
            biased;
            () = replica.process.died() => None,
            answers = timeout(PATIENCE, reader.read_many(vec![get], ROOM)) => answers.ok().and_then(|mut it| it.pop()),
        };
        let outcome = self.outcome_of_read(answer)?;
        self.record(at, Action::Read, from, None, outcome);
        if let Outcome::Read(seen) = outcome { seen } else { None }
    }

    /// What is found by a value, on all pages; none if one could not be had.
    async fn find_by(&mut self, at: usize, value: u64) -> Option<Vec<Found>> {
        let record = &self.world.records[at];
        let mut query = Query {
            table: self.world.tables[record.table].name.clone(),
            field: "value".to_owned(),
            value: Value::Int64(value as i64),
            limit: 2,
            page_token: String::new(),
            columns: Vec::new(),
        };
        let mut all = Vec::new();
        loop {
            let replica = self.world.ready_replica().await;
            let finder = replica.finder();
            let answer = tokio::select! {
                biased;
                () = replica.process.died() => return None,
                answer = timeout(PATIENCE, finder.find(query.clone())) => answer.ok()?,
            };
            match answer {
                Ok(page) => {
                    for found in &page.records {
                        if found.row.get("id") != World::key_row(record).get("id") {
                            self.world.complain(format!("another record was found by {value}: {found:?}"));
                            return None;
                        }
                    }
                    all.extend(page.records);
                    if page.next_page_token.is_empty() {
                        return Some(all);
                    }
                    query.page_token = page.next_page_token;
                }
                Err(FindError::Store(_) | FindError::IndexNotReady(_)) => {
                    self.was_sent_away = true;
                    return None;
                }
                Err(error) => {
                    self.world.complain(format!("a find was refused that is right: {error}"));
                    return None;
                }
            }
        }
    }

    /// What a read came to; none if it can't be.
    fn outcome_of_read(&self, answer: Option<Result<Found, ReadError>>) -> Option<Outcome> {
        if let Some(Err(error)) = &answer {
            self.world.nature.note(|| format!("CLIENT {} is told: {error}", self.number));
        }
        match answer {
            Some(Ok(found)) => {
                let seen = seen(&found);
                if seen.is_none() {
                    self.world.complain(format!("a row without its columns was read: {found:?}"));
                }
                seen.map(|seen| Outcome::Read(Some(seen)))
            }
            Some(Err(ReadError::NotFound(_))) => Some(Outcome::Read(None)),
            Some(Err(ReadError::Store(_) | ReadError::NoRoom)) | None => Some(Outcome::Refused(Refusal::Other)),
            Some(Err(error)) => {
                self.world.complain(format!("a read was refused that is right: {error}"));
                None
            }
        }
    }

    /// Makes a record be forgotten. Nobody may see that, but for a database that is asked once more.
    pub(super) async fn evict(&mut self) {
        let record = &self.world.records[self.world.any_record()];
        let (table, key) = (&self.world.tables[record.table].name, World::key_row(record));
        let replica = self.world.ready_replica().await;
        let reader = replica.reader();
        let answer = tokio::select! {
            biased;
            () = replica.process.died() => return,
            answer = timeout(PATIENCE, reader.evict(table, std::slice::from_ref(&key))) => answer,
        };
        self.world.nature.note(|| format!("CLIENT {} has evicted {}: {answer:?}", self.number, record.name));
    }
}

fn seen(found: &Found) -> Option<Seen> {
    let Etag { version, epoch } = found.etag?;
    Some(Seen { version: version.get(), epoch: Some(epoch.0), image: image(&found.row)? })
}
