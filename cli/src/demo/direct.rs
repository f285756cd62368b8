//! The comparison: the same stream sent straight to a database that bears so many writes per second.
//!
//! Each write is a real transaction on a real database; what the database bears is given by holding it for
//! 1/limit seconds per write. Clients queue for it, first come, first served, and give up after a second.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use database::{AnyDatabase, Batch, Change, Database as _, DatabaseOptions, Owner, ShardClaim};
use model::{Content, DatabaseName, Image, Operation, Shard, TableName, TableSchema, Version};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::PAYMENTS_SQL;

use super::{
    figures::{DirectFigures, quantile_ms},
    payments::{Life, Step},
    rows,
};

/// How long a client waits for its write.
const PATIENCE: Duration = Duration::from_secs(1);

/// A database that bears one write at a time, and `limit` per second.
struct SmallDatabase {
    database: AnyDatabase,
    schema: TableSchema,
    owner: Owner,
    turn: Semaphore,
    hold: Duration,
}

impl SmallDatabase {
    async fn open(directory: &Path, limit: u32) -> Result<Self> {
        let name = DatabaseName::new("direct")?;
        let url = format!("sqlite://{}", directory.join("direct.db").display());
        let options = DatabaseOptions { create_if_missing: true, ..DatabaseOptions::new(name.clone(), url) };
        let database = AnyDatabase::connect(options).await?;
        database.prepare().await?;
        database.run_script(PAYMENTS_SQL).await?;
        let table = TableName::new("payments")?;
        let schema = database.introspect(&name, &table).await?;
        let owner = Owner("direct".into());
        database.take_ownership(&[ShardClaim { table, shard: Shard(0) }], &owner).await?;
        Ok(Self { database, schema, owner, turn: Semaphore::new(1), hold: Duration::from_secs(1) / limit.max(1) })
    }

    /// One write; `None` if its turn did not come in time.
    async fn write(&self, change: Change) -> Result<Option<()>> {
        let Ok(turn) = timeout(PATIENCE, self.turn.acquire()).await else { return Ok(None) };
        let _turn = turn?;
        let released = Instant::now() + self.hold;
        let batch = Batch { schema: &self.schema, owners: vec![(Shard(0), self.owner.clone())], changes: &[change] };
        self.database.apply(batch).await?;
        sleep_until(released).await;
        Ok(Some(()))
    }
}

/// Sends every step at its time, whether the one before got through or not, as independent clients do.
pub(crate) async fn run(directory: &Path, lives: &[Life], limit: u32) -> Result<DirectFigures> {
    let database =
        Arc::new(SmallDatabase::open(directory, limit).await.context("opening the database of the comparison")?);
    let start = Instant::now();
    let mut writes = JoinSet::new();
    let mut nth = 0;
    for life in lives {
        for (done, (at, _)) in life.steps.iter().enumerate() {
            nth += 1;
            let change = change(&database.schema, life, done, nth)?;
            let (database, due) = (database.clone(), start + *at);
            writes.spawn(async move {
                sleep_until(due).await;
                let begun = Instant::now();
                let written = database.write(change).await?;
                anyhow::Ok((written, begun.elapsed()))
            });
        }
    }
    let (mut waits, mut timed_out) = (Vec::new(), 0);
    while let Some(write) = writes.join_next().await {
        let (written, waited) = write??;
        timed_out += u64::from(written.is_none());
        waits.push(waited);
    }
    Ok(DirectFigures {
        sent: waits.len() as u64,
        timed_out,
        p99_ms: quantile_ms(&mut waits, 0.99),
        p50_ms: quantile_ms(&mut waits, 0.5),
        timeout_ms: PATIENCE.as_millis() as u64,
    })
}

fn change(schema: &TableSchema, life: &Life, done: usize, nth: u64) -> Result<Change> {
    let content = match (&life.steps[done].1, life.row_after(done + 1)) {
        (Step::Delete, _) | (_, None) => Content::Tombstone,
        (_, Some(columns)) => Content::Row(rows::whole_row(schema, &columns)?),
    };
    let key = model::Key(vec![model::Value::Text(life.id.clone())]);
    let version = Version::new(nth).context("too many writes")?;
    let image =
        Image { content, operation: Operation::Put, fingerprint: schema.fingerprint(), request: None, since: None };
    Ok(Change { shard: Shard(0), key, version, image })
}
