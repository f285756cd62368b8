//! The statements that a table is read and written with, for the law of names: a session that only notes them.

use futures::FutureExt as _;
use model::{Content, Fingerprint, Image, Key, Operation, Row, Shard, TableSchema, Value, Version};

use super::{
    dialect::Dialect,
    plan::Plan,
    read::{self, Extent},
    session::{Expected, Failure, Purpose, Session},
    statement::Statement,
    table::TableText,
    write::{self, Writing},
};
use crate::{Batch, Change, DatabaseError, Owner, verdict::Write};

struct Noting {
    /// How many rows an upsert is said to have matched that changed one: MySQL counts that row twice.
    by_upsert: u64,
    /// Each statement with how many values are bound to it.
    statements: Vec<(String, usize)>,
}

impl Noting {
    fn note(&mut self, statement: Statement<'_>) -> u64 {
        let (text, params) = statement.into_parts();
        // A name may read like that as well, but stands between backticks where this means an upsert.
        let is_upsert = text.split('`').step_by(2).any(|part| part.contains(" ON DUPLICATE KEY UPDATE "));
        self.statements.push((text, params.len()));
        // All writes are of one row.
        if is_upsert { self.by_upsert } else { 1 }
    }
}

impl Session for Noting {
    async fn begin(&mut self, _: Purpose) -> Result<(), Failure> {
        Ok(())
    }

    async fn execute(&mut self, statement: Statement<'_>) -> Result<u64, Failure> {
        Ok(self.note(statement))
    }

    async fn fetch(&mut self, statement: Statement<'_>, _: &[Expected<'_>]) -> Result<Vec<Vec<Value>>, Failure> {
        self.note(statement);
        Ok(Vec::new())
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    async fn run_script(self, _: String) -> Result<(), Failure> {
        Ok(())
    }

    async fn rollback(&mut self) {}
}

/// What a row of integers is locked, read, written and deleted with.
///
/// # Panics
/// If that is not possible.
pub(crate) fn statements(dialect: &impl Dialect, schema: &TableSchema) -> Vec<(String, usize)> {
    let mut noting = Noting { by_upsert: dialect.matched_by_upsert(1), statements: Vec::new() };
    if let Err(error) = noted(&mut noting, dialect, schema) {
        panic!("{error}");
    }
    noting.statements
}

fn noted(noting: &mut Noting, dialect: &impl Dialect, schema: &TableSchema) -> Result<(), DatabaseError> {
    let row: Row = schema.columns.iter().map(|column| (column.name.clone(), Value::Int64(7))).collect();
    let key = Key(schema.key().map(|_| Value::Int64(7)).collect());
    let image = Image {
        content: Content::Row(row),
        operation: Operation::Put,
        fingerprint: Fingerprint(0),
        request: None,
        since: None,
    };
    let changes = [Change { shard: Shard(0), key, version: Version::MAX, image }];
    let owners = vec![(Shard(0), Owner("o".to_owned()))];
    let plan = Plan::new(dialect, &Batch { schema, owners, changes: &changes })?;
    let table = TableText::new(dialect, schema);
    let now = |outcome: Option<Result<(), Failure>>| {
        let waits = || Failure::Broken("a session that only notes waits for nobody".to_owned());
        outcome.unwrap_or_else(|| Err(waits())).map_err(|failure| failure.on("t"))
    };
    for change in &plan.changes {
        for extent in [Extent::KeyLocked, Extent::Full] {
            let keys = [(&change.key_bytes, change.key.as_slice())];
            now(read::rows(noting, &table, &keys, extent).now_or_never().map(|read| read.map(drop)))?;
        }
        now(read::ledger(noting, &table, &[&change.key_bytes]).now_or_never().map(|read| read.map(drop)))?;
        for write in [Write::Insert, Write::Update, Write::Delete, Write::Tombstone] {
            let writing = [Writing { change, write, in_ledger: true }];
            now(write::write(noting, &table, &writing).now_or_never())?;
        }
    }
    Ok(())
}
