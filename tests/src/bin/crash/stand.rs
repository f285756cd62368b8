//! What is hurt: servers of its own, two ingest replicas and three drains, each link through a proxy.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use database::{AnyDatabase, Database as _, DatabaseOptions};
use futures::future::try_join_all;
use hot_store::{
    HotStore as _,
    redis::{RedisOptions, RedisStore},
};
use model::{DatabaseName, ShardCount, TableName, TableSchema};
use shock_absorber_client::{Client, TableRef};
use shock_absorber_tests::{
    Service, ServiceSettings, eventually, port,
    proxy::Proxy,
    servers::{Door, KafkaServer, MariaDbServer, RedisServer},
};

use crate::{
    client::PATIENCE,
    faults::{Cast, Link},
    places::{TABLES, Table},
};

const SCHEMA: &str = "shop";
const PREFIX: &str = "crash";
const SHARDS: u32 = 8;
const INGESTS: usize = 2;
const DRAINS: usize = 3;
/// The fewest seconds after which a silent drain's partitions move on.
pub(crate) const SESSION: Duration = Duration::from_secs(3);
/// Rows per second over all drains.
const LIMIT: u32 = 1_500;

pub(crate) struct Stand {
    pub(crate) ingests: Vec<Service>,
    pub(crate) drains: Vec<Service>,
    pub(crate) redis: RedisServer,
    pub(crate) kafka: KafkaServer,
    pub(crate) mariadb: MariaDbServer,
    pub(crate) links: BTreeMap<Link, Proxy>,
    /// Past all proxies.
    pub(crate) database: Arc<AnyDatabase>,
    pub(crate) schemas: BTreeMap<Table, TableSchema>,
    pub(crate) hot: RedisStore,
    pub(crate) shards: ShardCount,
}

impl Stand {
    /// Starts everything, with the tables enabled.
    ///
    /// # Errors
    /// If anything doesn't start.
    pub(crate) async fn start(binaries: Option<PathBuf>, before: &str) -> Result<Self> {
        let doors = (port::free()?, port::free()?);
        let mut links = BTreeMap::new();
        for (link, target) in [(Link::IngestKafka, doors.0), (Link::DrainKafka, doors.1)] {
            links.insert(link, Proxy::start(&format!("{link:?}"), target).await?);
        }
        let door = |name: &str, port, link| Door { name: name.to_owned(), port, advertised: links[&link].port() };
        let doors = vec![door("INGEST", doors.0, Link::IngestKafka), door("DRAIN", doors.1, Link::DrainKafka)];
        let (redis, kafka, mariadb) = tokio::try_join!(
            RedisServer::start_with_clock(&["--appendonly", "yes", "--appendfsync", "always"]),
            KafkaServer::start_with_doors(&[("group.min.session.timeout.ms", "1000")], doors),
            MariaDbServer::start(),
        )?;
        for (link, target) in [
            (Link::IngestRedis, redis.port()),
            (Link::DrainRedis, redis.port()),
            (Link::IngestDatabase, mariadb.port()),
            (Link::DrainDatabase, mariadb.port()),
        ] {
            links.insert(link, Proxy::start(&format!("{link:?}"), target).await?);
        }

        mariadb.create_schema(SCHEMA).await?;
        let options = DatabaseOptions::new(DatabaseName::new("main")?, mariadb.url(SCHEMA));
        let database = Arc::new(AnyDatabase::connect(options).await?);
        database.run_script(TABLES).await?;
        database.run_script(before).await?;
        database.add_version_column(&TableName::new(Table::Accounts.name())?).await?;
        let mut schemas = BTreeMap::new();
        for table in Table::ALL {
            let schema = database.introspect(&DatabaseName::new("main")?, &TableName::new(table.name())?).await?;
            schemas.insert(table, schema);
        }

        let port = |link| links.get(&link).map(Proxy::port).context("a link has no proxy");
        let settings = |redis, kafka, database| -> Result<ServiceSettings> {
            let url = format!("mysql://root@127.0.0.1:{}/{SCHEMA}", port(database)?);
            Ok(common(binaries.clone())
                .yaml(format!("databases:\n  - name: main\n    url: {url}\n    pool: 8\n"))
                .set("redis.url", format!("redis://127.0.0.1:{}", port(redis)?))
                .set("kafka.brokers", format!("127.0.0.1:{}", port(kafka)?)))
        };
        let of_ingest = settings(Link::IngestRedis, Link::IngestKafka, Link::IngestDatabase)?;
        let of_drain = settings(Link::DrainRedis, Link::DrainKafka, Link::DrainDatabase)?;
        // The first one makes our tables and the topics.
        let mut ingests = vec![Service::start("ingest-svc", of_ingest.clone()).await?];
        for _ in 1..INGESTS {
            ingests.push(Service::start("ingest-svc", of_ingest.clone()).await?);
        }
        for (n, ingest) in ingests.iter().enumerate() {
            let link = Link::ClientIngest(n);
            links.insert(link, Proxy::start(&format!("{link:?}"), ingest.api().port()).await?);
        }
        let client = Client::connect(ingests[0].api_url()).await?;
        for table in Table::ALL {
            client.enable_table(TableRef::from(table.name())).await?;
        }
        let mut drains: Vec<Service> = (0..DRAINS)
            .map(|n| Service::spawn("drain-svc", of_drain.clone().set("drain.replica", format!("drain-{n}"))))
            .collect::<Result<_>>()?;
        try_join_all(drains.iter_mut().map(Service::ready)).await?;

        let shards = ShardCount::new(SHARDS)?;
        let options = RedisOptions { url: redis.url(), prefix: PREFIX.to_owned(), shards, ..RedisOptions::default() };
        let hot = RedisStore::connect(options).await?;
        Ok(Self { ingests, drains, redis, kafka, mariadb, links, database, schemas, hot, shards })
    }

    pub(crate) fn cast(&self) -> Cast {
        Cast { ingests: INGESTS, drains: DRAINS }
    }

    /// A client per ingest replica, through its proxy, that sends nothing twice by itself.
    ///
    /// # Errors
    /// If one can't connect.
    pub(crate) async fn clients(&self) -> Result<Vec<Client>> {
        let ports = (0..INGESTS).map(|n| self.links[&Link::ClientIngest(n)].port());
        try_join_all(ports.map(|port| async move {
            let client = Client::builder(format!("http://127.0.0.1:{port}"))
                .connections(1)
                .without_retries()
                .timeout(PATIENCE)
                .attempt_timeout(PATIENCE)
                .connect_timeout(Duration::from_millis(500));
            Ok(client.connect().await?)
        }))
        .await
    }

    /// How many records the database lacks; `None` while a shard is closed or Redis doesn't answer.
    pub(crate) async fn dirty(&self) -> Option<u64> {
        let mut dirty = 0;
        for shard in self.shards.all() {
            match self.hot.header(shard).await {
                Ok(header) if header.open => dirty += header.dirty,
                _ => return None,
            }
        }
        Some(dirty)
    }

    /// Waits until the database has everything.
    ///
    /// # Errors
    /// If that takes too long.
    pub(crate) async fn drained(&self, within: Duration) -> Result<()> {
        let drained =
            eventually("end of the backlog", within, || async { Ok((self.dirty().await == Some(0)).then_some(())) });
        let outcome = drained.await;
        if outcome.is_err() {
            let mut states = String::new();
            for shard in self.shards.all() {
                states.push_str(&format!("\n  shard {shard}: {:?}", self.hot.header(shard).await));
            }
            return outcome.context(format!("the shards are:{states}"));
        }
        outcome
    }

    /// What everything has printed, by name.
    pub(crate) fn logs(&self) -> Vec<(String, String)> {
        let mut logs = vec![
            ("redis".to_owned(), self.redis.log()),
            ("kafka".to_owned(), self.kafka.log()),
            ("mariadb".to_owned(), self.mariadb.log()),
        ];
        let services = [("ingest", &self.ingests), ("drain", &self.drains)];
        for (name, services) in services {
            logs.extend(services.iter().enumerate().map(|(n, service)| (format!("{name}-{n}"), service.log())));
        }
        logs
    }
}

/// Everything short, so that a cycle sees much of it.
fn common(binaries: Option<PathBuf>) -> ServiceSettings {
    ServiceSettings::new()
        .binaries(binaries)
        .set("shards", SHARDS)
        .set("redis.prefix", PREFIX)
        .set("redis.response_timeout", "1s")
        .set("kafka.topic_template", "crash.{table}")
        .set("kafka.group", PREFIX)
        .set("kafka.allow_single_node", true)
        .set("kafka.session_timeout", format!("{}s", SESSION.as_secs()))
        .set("kafka.delivery_timeout", "3s")
        .set("tables.defaults.ttl", "400ms")
        .set("table_refresh", "500ms")
        .set("ingest.lease_ttl", "1s")
        .set("ingest.absent_ttl", "300ms")
        .set("ingest.relay_interval", "200ms")
        .set("ingest.checkpoint_interval", "200ms")
        .set("drain.rows_per_second", LIMIT)
        .set("drain.retry_max", "500ms")
        .set("drain.horizon_interval", "200ms")
        .set("drain.purge_interval", "1s")
        .set("drain.tombstone_retention", "2s")
        .set("telemetry.log", "info")
}
