//! Looks at records: into the database, past us, and through every ingest replica.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use database::{AnyDatabase, Database as _, DatabaseRow};
use futures::{StreamExt as _, stream};
use history::{Action, Operation, Outcome, Sample, Seen, Span};
use model::{Key, ShardCount, TableSchema};
use shock_absorber_client::Client;
use shock_absorber_tests::eventually;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    client,
    places::{Place, Table, image_of_database},
    recorder::Recorder,
};

const AT_ONCE: usize = 16;
const INTERVAL: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks into the database.
#[derive(Clone)]
pub(crate) struct Onlooker {
    pub(crate) database: Arc<AnyDatabase>,
    pub(crate) schemas: Arc<BTreeMap<Table, TableSchema>>,
    pub(crate) shards: ShardCount,
    pub(crate) recorder: Arc<Recorder>,
}

impl Onlooker {
    /// Looks at some records again and again, until it is told to stop: also while the database is behind.
    pub(crate) async fn watch(self, places: Arc<[Place]>, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            // A database that is away has nothing to say.
            let _ = timeout(Duration::from_secs(1), self.look(&places, false)).await;
            sleep(INTERVAL).await;
        }
    }

    /// One look at each of the records.
    pub(crate) async fn look(&self, places: &[Place], drained: bool) -> Result<()> {
        for table in Table::ALL {
            let places: Vec<Place> = places.iter().copied().filter(|place| place.table == table).collect();
            let schema = self.schemas.get(&table).context("a table without a schema")?;
            let keys: Vec<Key> = places.iter().map(|place| key(schema, *place)).collect::<Result<_>>()?;
            let from = self.recorder.now();
            let horizons = self.horizons(table).await?;
            let rows = self.database.read(schema, &keys).await?;
            let span = Span::new(from, self.recorder.now());
            for ((place, key), row) in places.iter().zip(&keys).zip(rows) {
                let row = match row {
                    DatabaseRow::Present { version, row } => {
                        Some(Seen { version: version.get(), epoch: None, image: image_of_database(&row)? })
                    }
                    DatabaseRow::Deleted { .. } | DatabaseRow::Absent => None,
                };
                let shard = schema.shard_of(key, self.shards);
                let horizon = horizons.get(&i64::from(shard.0)).copied().unwrap_or(0).cast_unsigned();
                self.recorder.sample(Sample { key: place.to_string(), span, drained, horizon, row });
            }
        }
        Ok(())
    }

    /// By shard.
    async fn horizons(&self, table: Table) -> Result<BTreeMap<i64, i64>> {
        let of = |column: &str| {
            format!("SELECT {column} FROM _sa_shard WHERE table_name = '{}' ORDER BY shard", table.name())
        };
        let horizons = self.database.query_integers(&of("horizon")).await?;
        // Rows may be added meanwhile, never taken away: then there are more shards, and the first look was too short.
        let shards = self.database.query_integers(&of("shard")).await?;
        if horizons.len() != shards.len() {
            return Ok(BTreeMap::new());
        }
        Ok(shards.into_iter().zip(horizons).collect())
    }

    /// The last word of a cycle: every record in the database, and as every replica answers it.
    ///
    /// # Errors
    /// If something does not answer although everything is healed.
    pub(crate) async fn settle(&self, places: &[Place], replicas: &[Client]) -> Result<()> {
        let looked =
            eventually("look into the database", PATIENCE, || async { Ok(self.look(places, true).await.ok()) });
        looked.await?;
        let reads =
            replicas.iter().enumerate().flat_map(|(n, replica)| places.iter().map(move |place| (n, replica, *place)));
        let answered: Vec<Result<()>> = stream::iter(reads)
            .map(|(n, replica, place)| async move {
                let read = || async move {
                    let (outcome, span) = client::read(&self.recorder, replica, place).await;
                    Ok(matches!(outcome, Outcome::Read(_)).then_some((outcome, span)))
                };
                let (outcome, span) = eventually("answer to a read", PATIENCE, read).await?;
                // By the replicas' numbers, apart from the clients.
                let client = u32::MAX - u32::try_from(n)?;
                let key = place.to_string();
                self.recorder.operation(Operation { client, key, action: Action::Read, span, batch: None, outcome });
                Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        answered.into_iter().collect()
    }
}

fn key(schema: &TableSchema, place: Place) -> Result<Key> {
    let row = place.model_key()?;
    schema.accept_key(&row).map_err(|problems| anyhow!("{place} is no key: {problems:?}"))
}
