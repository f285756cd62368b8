//! Servers of a figure's own and an ingest replica, with some tables enabled.

use anyhow::{Context as _, Result};
use database::{AnyDatabase, DatabaseOptions};
use futures::future::try_join_all;
use model::DatabaseName;
use shock_absorber_client::{Client, Row, TableRef, Write};
use shock_absorber_tests::{
    Service, ServiceSettings,
    servers::{KafkaServer, MariaDbServer, RedisServer},
};

/// The schema in MariaDB, and the database's name to our services.
pub(crate) const SCHEMA: &str = "shop";
/// How long anything may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);
/// Batches that are written at once.
const WRITERS: usize = 4;

/// Everything that runs but the drains.
pub(crate) struct Shop {
    pub(crate) client: Client,
    pub(crate) mariadb: MariaDbServer,
    pub(crate) kafka: KafkaServer,
    pub(crate) redis: RedisServer,
    /// For drains, too.
    pub(crate) settings: ServiceSettings,
    ingest: Service,
}

impl Shop {
    /// Servers as durable as in earnest. `ddl` makes the tables.
    ///
    /// # Errors
    /// If anything doesn't start.
    pub(crate) async fn open(ddl: &str, tables: &[&str], settings: ServiceSettings) -> Result<Self> {
        Self::open_on(16, ddl, tables, settings).await
    }

    /// The same on so many shards.
    ///
    /// # Errors
    /// As [`Shop::open`].
    pub(crate) async fn open_on(shards: u16, ddl: &str, tables: &[&str], settings: ServiceSettings) -> Result<Self> {
        eprintln!("starting Redis, Kafka, MariaDB and ingest");
        let (redis, kafka, mariadb) = tokio::try_join!(
            RedisServer::start_with(&["--appendonly", "yes"]),
            KafkaServer::start_with(&[("group.min.session.timeout.ms", "1000")]),
            MariaDbServer::start_with(&["--innodb-buffer-pool-size=256M"]),
        )?;
        mariadb.create_schema(SCHEMA).await?;
        let database = DatabaseOptions::new(DatabaseName::new("main")?, mariadb.url(SCHEMA));
        AnyDatabase::connect(database).await?.run_script(ddl).await?;
        let settings = settings
            .yaml(format!("databases:\n  - name: main\n    url: {}\n    pool: 8\n", mariadb.url(SCHEMA)))
            .set("redis.url", redis.url())
            .set("kafka.brokers", kafka.brokers())
            .set("kafka.allow_single_node", true)
            .set("shards", shards);
        let ingest = Service::start("ingest-svc", settings.clone()).await?;
        let client = Client::builder(ingest.api_url()).connections(4).timeout(PATIENCE).attempt_timeout(PATIENCE);
        let client = client.connect().await?;
        for table in tables {
            client.enable_table(TableRef::from(*table)).await?;
        }
        Ok(Self { client, mariadb, kafka, redis, settings, ingest })
    }

    /// A drain, ready.
    ///
    /// # Errors
    /// If it doesn't start.
    pub(crate) async fn drain(&self, replica: &str) -> Result<Service> {
        Service::start("drain-svc", self.settings.clone().set("drain.replica", replica)).await
    }

    /// Puts so many rows, in batches of `at_once`.
    ///
    /// # Errors
    /// If one is not acknowledged.
    pub(crate) async fn put(&self, table: &str, rows: i64, at_once: usize, row: impl Fn(i64) -> Row) -> Result<()> {
        let row = &row;
        let writer = |writer: usize| async move {
            for from in (0..rows).step_by(at_once).skip(writer).step_by(WRITERS) {
                let until = rows.min(from + i64::try_from(at_once)?);
                let writes: Vec<Write> = (from..until).map(|n| Write::put(table, row(n))).collect();
                let results = self.client.batch_write(&writes).await;
                results.into_iter().collect::<Result<Vec<_>, _>>().context("a write was not acknowledged")?;
            }
            anyhow::Ok(())
        };
        try_join_all((0..WRITERS).map(writer)).await.map(drop)
    }

    /// The one number that a query gives.
    ///
    /// # Errors
    /// If the database can't be asked, or gives something else.
    pub(crate) async fn number(&self, select: &str) -> Result<i64> {
        let answer = self.mariadb.sql(SCHEMA, select).await?;
        answer.trim().parse().with_context(|| format!("{select} gave {answer}"))
    }

    /// Stops ingest; the servers end with this.
    ///
    /// # Errors
    /// If it doesn't stop.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.ingest.stop().await.map(drop)
    }
}
