//! A whole Shock Absorber: embedded in one process, or ingest and drains on real servers. Scenarios run on either.

use std::process::Command;

use anyhow::{Context as _, Result};
use database::{AnyDatabase, DatabaseOptions};
use model::{DatabaseName, Topic};
use shock_absorber_client::{Client, TableRef};

use crate::{
    Service, ServiceSettings, given, operator,
    servers::{KafkaServer, MariaDbServer, RedisServer},
};

/// The name of the one database that every system of the tests has.
const DATABASE: &str = "main";

/// Where a system's stores are.
#[derive(Debug, Clone)]
struct Stores {
    redis: String,
    kafka: String,
    database: String,
}

/// Servers of a system's own, to be hurt.
#[derive(Debug)]
pub struct OwnServers {
    /// Its Redis, with an append-only file.
    pub redis: RedisServer,
    /// Its Kafka.
    pub kafka: KafkaServer,
    /// Its MariaDB.
    pub mariadb: MariaDbServer,
}

/// A running system, with a client and a way to its database past it.
pub struct System {
    /// A client of the first ingest replica.
    pub client: Client,
    /// The database itself.
    pub database: AnyDatabase,
    /// `dev`, or ingest replicas first and then drains.
    pub services: Vec<Service>,
    /// Servers of its own, if it was asked for them.
    pub own: Option<OwnServers>,
    settings: ServiceSettings,
    /// What its topics' names begin with.
    topics: Option<String>,
}

impl System {
    /// Everything in one process. `tables` is SQL that makes the tables.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn embedded(tables: &str, settings: ServiceSettings) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("embedded-tables-").tempdir()?;
        let init_sql = dir.path().join("tables.sql");
        std::fs::write(&init_sql, tables)?;
        // Relative to the directory that the process is started in.
        let arguments = ["dev", "--data-dir", "data", "--init-sql", init_sql.to_str().context("a strange path")?];
        let settings = settings.arguments(&arguments).set("shards", 8);
        let service = Service::start("shock-absorber", settings.clone()).await?;
        let url = format!("sqlite://{}", service.dir().join("data/main.db").display());
        let database = AnyDatabase::connect(DatabaseOptions::new(DatabaseName::new(DATABASE)?, url)).await?;
        let client = Client::connect(service.api_url()).await?;
        Ok(Self { client, database, services: vec![service], own: None, settings, topics: None })
    }

    /// One ingest replica and two drains on the servers that all tests share.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn on_shared_servers(tables: &str, settings: ServiceSettings) -> Result<Self> {
        Self::on_shared(given::mariadb(), tables, settings).await
    }

    /// The same on MySQL itself in place of MariaDB.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn on_shared_mysql(tables: &str, settings: ServiceSettings) -> Result<Self> {
        Self::on_shared(given::mysql(), tables, settings).await
    }

    async fn on_shared(shared: String, tables: &str, settings: ServiceSettings) -> Result<Self> {
        let name = format!("e2e_{:016x}", rand::random::<u64>());
        let (server, _) = shared.rsplit_once('/').context("the address of the test database names no schema")?;
        admin(&shared, &format!("CREATE SCHEMA {name} CHARACTER SET utf8mb4")).await?;
        let stores = Stores { redis: given::redis(), kafka: given::kafka(), database: format!("{server}/{name}") };
        Self::on(stores, &name, tables, settings, None).await
    }

    /// The same on PostgreSQL in place of MariaDB.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn on_shared_postgres(tables: &str, settings: ServiceSettings) -> Result<Self> {
        let name = format!("e2e_{:016x}", rand::random::<u64>());
        let shared = given::postgres();
        admin(&shared, &format!("CREATE SCHEMA {name}")).await?;
        let database = format!("{shared}?options=-csearch_path%3D{name}");
        let stores = Stores { redis: given::redis(), kafka: given::kafka(), database };
        Self::on(stores, &name, tables, settings, None).await
    }

    /// One ingest replica and two drains on servers of their own.
    ///
    /// # Errors
    /// If a server or a service does not start.
    pub async fn on_own_servers(tables: &str, settings: ServiceSettings) -> Result<Self> {
        let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await?;
        let kafka = KafkaServer::start().await?;
        let mariadb = MariaDbServer::start().await?;
        mariadb.create_schema("shop").await?;
        let stores = Stores { redis: redis.url(), kafka: kafka.brokers(), database: mariadb.url("shop") };
        Self::on(stores, "own", tables, settings, Some(OwnServers { redis, kafka, mariadb })).await
    }

    async fn on(
        stores: Stores,
        name: &str,
        tables: &str,
        settings: ServiceSettings,
        own: Option<OwnServers>,
    ) -> Result<Self> {
        let database =
            AnyDatabase::connect(DatabaseOptions::new(DatabaseName::new(DATABASE)?, stores.database.as_str())).await?;
        database.run_script(tables).await?;
        let settings = settings
            .yaml(format!("databases:\n  - name: {DATABASE}\n    url: {}\n    pool: 8\n", stores.database))
            .set("shards", 8)
            .set("redis.url", &stores.redis)
            .set("redis.prefix", name)
            .set("kafka.brokers", &stores.kafka)
            .set("kafka.topic_template", format!("{name}.{{table}}"))
            .set("kafka.group", name)
            .set("kafka.allow_single_node", true)
            .set("kafka.session_timeout", "6s");
        let ingest = Service::start("ingest-svc", settings.clone()).await?;
        let client = Client::connect(ingest.api_url()).await?;
        let mut services = vec![ingest];
        for replica in ["drain-a", "drain-b"] {
            services.push(Service::start("drain-svc", settings.clone().set("drain.replica", replica)).await?);
        }
        let system = Self { client, database, services, own, settings, topics: Some(name.to_owned()) };
        for table in ["payments", "entries"] {
            system.client.enable_table(&TableRef::from(table)).await?;
        }
        Ok(system)
    }

    /// The topic of a table; `None` in the embedded edition.
    pub fn topic(&self, table: &str) -> Option<Topic> {
        self.topics.as_ref().and_then(|name| Topic::new(format!("{name}.{table}")).ok())
    }

    /// Whether it is the embedded edition.
    pub fn is_embedded(&self) -> bool {
        self.services.len() == 1
    }

    /// Another ingest replica beside the first.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn another_ingest(&mut self) -> Result<Client> {
        let ingest = Service::start("ingest-svc", self.settings.clone()).await?;
        let client = Client::connect(ingest.api_url()).await?;
        self.services.push(ingest);
        Ok(client)
    }

    /// Another drain replica, with these settings over those of the others.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn another_drain(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        let all = settings.iter().fold(self.settings.clone(), |all, (key, value)| all.set(key, value));
        self.services.push(Service::start("drain-svc", all).await?);
        Ok(())
    }

    /// kill -9 of all our processes, then their start.
    ///
    /// # Errors
    /// If one does not come up again.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.services.iter_mut().for_each(Service::kill9);
        for service in &mut self.services {
            service.restart().await?;
        }
        Ok(())
    }

    /// Runs an operator's command against the first ingest replica, to its end.
    ///
    /// # Errors
    /// If it can't be run; how it ends is in the answer.
    pub async fn operator(&self, arguments: &[&str]) -> Result<operator::Told> {
        let service = self.services.first().context("nothing runs")?;
        operator::run(&service.api_url(), arguments).await
    }

    /// Deletes images of the hot store whose name has this in it, as nobody does who is right. How many there were; none
    /// in the embedded edition.
    ///
    /// # Errors
    /// If Redis can't be asked.
    pub async fn delete_images(&self, of: &str) -> Result<u64> {
        const DELETE: &str = "local keys = redis.call('KEYS', ARGV[1]) \
                              for _, key in ipairs(keys) do redis.call('DEL', key) end return #keys";
        let Some(name) = &self.topics else { return Ok(0) };
        let redis = self.own.as_ref().map_or_else(given::redis, |own| own.redis.url());
        let mut command = Command::new("redis-cli");
        command.args(["-u", &redis, "EVAL", DELETE, "0"]).arg(format!("{name}:*:r:*{of}*"));
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        told.parse().with_context(|| format!("redis-cli said {told:?}"))
    }

    /// The one number that a query gives.
    ///
    /// # Errors
    /// If the database can't be asked or answers nothing.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        self.database.query_integers(sql).await?.first().copied().with_context(|| format!("no answer to {sql}"))
    }
}

async fn admin(url: &str, sql: &str) -> Result<()> {
    Ok(AnyDatabase::connect(DatabaseOptions::new(DatabaseName::new("admin")?, url)).await?.run_script(sql).await?)
}
