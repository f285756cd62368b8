//! Servers, an ingest replica and two drains, and what the database says of itself.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use database::{AnyDatabase, Database as _, DatabaseOptions};
use model::{DatabaseName, TableName};
use shock_absorber_client::{Client, Rate, TableRef};
use shock_absorber_tests::{
    Service, ServiceSettings,
    servers::{KafkaServer, MariaDbServer, RedisServer},
};

pub(super) const TABLE: &str = "counters";
const SCHEMA: &str = "shop";
const DRAINS: [&str; 2] = ["drain-a", "drain-b"];
const PATIENCE: Duration = Duration::from_secs(900);
/// Tokens of one call, and for how long it waits.
const TOKENS: usize = 500;
const WAIT: Duration = Duration::from_secs(10);

/// All that runs.
pub(super) struct Stand {
    pub(super) client: Client,
    ingest: Service,
    drains: Vec<Service>,
    mariadb: MariaDbServer,
    _kafka: KafkaServer,
    _redis: RedisServer,
}

impl Stand {
    /// Servers as durable as in earnest. Nothing is drained to speak of, until [`Self::limit`].
    ///
    /// # Errors
    /// If anything doesn't start.
    pub(super) async fn start() -> Result<Self> {
        let (redis, kafka, mariadb) = tokio::try_join!(
            RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]),
            KafkaServer::start(),
            MariaDbServer::start_with(&["--innodb-buffer-pool-size=256M"]),
        )?;
        mariadb.create_schema(SCHEMA).await?;
        let url = mariadb.url(SCHEMA);
        let database = AnyDatabase::connect(DatabaseOptions::new(DatabaseName::new("main")?, url.as_str())).await?;
        let tables = format!(
            "CREATE TABLE {TABLE} (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL);
             CREATE TABLE written (n BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY);"
        );
        database.run_script(&tables).await?;
        database.add_version_column(&TableName::new(TABLE)?).await?;
        let settings = ServiceSettings::new()
            .yaml(format!("databases:\n  - name: main\n    url: {url}\n    pool: 8\n"))
            .set("redis.url", redis.url())
            .set("kafka.brokers", kafka.brokers())
            .set("kafka.allow_single_node", true)
            .set("drain.rows_per_second", 1);
        let ingest = Service::start("ingest-svc", settings.clone()).await?;
        let client = Client::builder(ingest.api_url()).connections(4).timeout(PATIENCE).attempt_timeout(PATIENCE);
        let client = client.connect().await?;
        client.enable_table(TableRef::from(TABLE)).await?;
        // Each change of a row is counted in the transaction that makes it.
        for what in ["INSERT", "UPDATE", "DELETE"] {
            let trigger = format!(
                "CREATE TRIGGER count_{what} AFTER {what} ON {TABLE} FOR EACH ROW INSERT INTO written VALUES (NULL)"
            );
            mariadb.sql(SCHEMA, &trigger).await?;
        }
        let mut drains = Vec::new();
        for replica in DRAINS {
            drains.push(Service::start("drain-svc", settings.clone().set("drain.replica", replica)).await?);
        }
        Ok(Self { client, ingest, drains, mariadb, _kafka: kafka, _redis: redis })
    }

    /// From now on so many rows per second are written.
    ///
    /// # Errors
    /// If that can't be set.
    pub(super) async fn limit(&self, rows_per_second: f64) -> Result<()> {
        eprintln!("the limit is {rows_per_second:.0} rows/s");
        let table = TableRef::from(TABLE);
        self.client.set_table_rate(&table, Rate::RowsPerSecond(rows_per_second)).await.map(drop)?;
        Ok(())
    }

    /// How many rows the database was made to write, by its own count.
    ///
    /// # Errors
    /// If it can't be asked.
    pub(super) async fn written(&self) -> Result<u64> {
        let count = self.mariadb.sql(SCHEMA, "SELECT COUNT(*) FROM written").await?;
        count.trim().parse().context("the number of rows written")
    }

    /// All rows of the table.
    ///
    /// # Errors
    /// If they can't be read.
    pub(super) async fn rows(&self) -> Result<BTreeMap<usize, i64>> {
        let rows = self.mariadb.sql(SCHEMA, &format!("SELECT id, amount FROM {TABLE}")).await?;
        let row = |line: &str| {
            let (id, amount) = line.split_once('\t')?;
            Some((id.parse().ok()?, amount.parse().ok()?))
        };
        rows.lines().map(|line| row(line).with_context(|| format!("{line:?} is no row"))).collect()
    }

    /// Waits until the database has what these tokens name.
    ///
    /// # Errors
    /// If that takes too long.
    pub(super) async fn drained(&self, tokens: impl Iterator<Item = &str>) -> Result<()> {
        let tokens: Vec<String> = tokens.map(str::to_owned).collect();
        let begun = Instant::now();
        for some in tokens.chunks(TOKENS) {
            while !self.client.wait_applied(some, WAIT).await? {
                ensure!(begun.elapsed() < PATIENCE, "the last writes were not drained within {PATIENCE:?}");
            }
        }
        Ok(())
    }

    /// Stops all in order; the servers end with this.
    ///
    /// # Errors
    /// If one doesn't stop.
    pub(super) async fn stop(&mut self) -> Result<()> {
        for service in self.drains.iter_mut().chain([&mut self.ingest]) {
            service.stop().await?;
        }
        Ok(())
    }
}
