//! Servers, an ingest replica and the table.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use database::{AnyDatabase, Database as _, DatabaseOptions};
use model::{DatabaseName, TableName, TableSchema};
use shock_absorber_client::{Client, TableRef};
use shock_absorber_tests::{
    Service, ServiceSettings,
    servers::{KafkaServer, MariaDbServer, RedisServer},
};

use super::SESSION;

const SCHEMA: &str = "shop";
pub(super) const TABLE: &str = "marks";
/// The same as without any settings.
const SHARDS: u32 = 64;
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Stand {
    pub(super) client: Client,
    pub(super) database: Arc<AnyDatabase>,
    pub(super) schema: TableSchema,
    settings: ServiceSettings,
    ingest: Service,
    _mariadb: MariaDbServer,
    _kafka: KafkaServer,
    _redis: RedisServer,
}

impl Stand {
    /// Everything but the drains.
    ///
    /// # Errors
    /// If anything doesn't start.
    pub(super) async fn start() -> Result<Self> {
        let session = SESSION.as_millis().to_string();
        let sessions = [("group.min.session.timeout.ms", &*session), ("group.consumer.session.timeout.ms", &*session)];
        let (redis, kafka, mariadb) = tokio::try_join!(
            RedisServer::start_with(&["--appendonly", "yes"]),
            KafkaServer::start_with(&sessions),
            MariaDbServer::start(),
        )?;
        mariadb.create_schema(SCHEMA).await?;
        let name = DatabaseName::new("main")?;
        let options = DatabaseOptions::new(name.clone(), mariadb.url(SCHEMA));
        let database = Arc::new(AnyDatabase::connect(options).await?);
        let columns =
            "(id BIGINT NOT NULL PRIMARY KEY, value BIGINT NOT NULL, lft BIGINT NOT NULL, rgt BIGINT NOT NULL)";
        database.run_script(&format!("CREATE TABLE {TABLE} {columns}")).await?;
        let table = TableName::new(TABLE)?;
        database.add_version_column(&table).await?;
        let schema = database.introspect(&name, &table).await?;
        let settings = ServiceSettings::new()
            .yaml(format!("databases:\n  - name: main\n    url: {}\n    pool: 8\n", mariadb.url(SCHEMA)))
            .set("shards", SHARDS)
            .set("redis.url", redis.url())
            .set("kafka.brokers", kafka.brokers())
            .set("kafka.allow_single_node", true)
            .set("kafka.session_timeout", format!("{}s", SESSION.as_secs()));
        let ingest = Service::start("ingest-svc", settings.clone()).await?;
        let client = Client::builder(ingest.api_url()).connections(2).timeout(PATIENCE).attempt_timeout(PATIENCE);
        let client = client.connect().await.context("the client")?;
        client.enable_table(TableRef::from(TABLE)).await?;
        Ok(Self { client, database, schema, settings, ingest, _mariadb: mariadb, _kafka: kafka, _redis: redis })
    }

    /// A drain in a group of this protocol, without waiting until it is ready.
    ///
    /// # Errors
    /// If it can't be started.
    pub(super) fn drain(&self, replica: usize, protocol: &str) -> Result<Service> {
        let settings = self.settings.clone().set("drain.replica", format!("drain-{replica}"));
        Service::spawn("drain-svc", settings.set("kafka.group_protocol", protocol))
    }

    /// Stops ingest; the servers end with this.
    ///
    /// # Errors
    /// If it doesn't stop.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.ingest.stop().await.map(drop)
    }
}
