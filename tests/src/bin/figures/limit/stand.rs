//! Servers, an ingest replica, and drains that come and go.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use database::{AnyDatabase, Database as _, DatabaseOptions};
use futures::future::try_join_all;
use model::{DatabaseName, TableName};
use shock_absorber_client::{Client, Rate, Row, TableRef, Write};
use shock_absorber_tests::{
    Service, ServiceSettings,
    servers::{KafkaServer, MariaDbServer, RedisServer},
};

use super::commits::Commit;

const SCHEMA: &str = "shop";
const AT_ONCE: u32 = 500;
const WRITERS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(300);

/// Everything that runs but the drains.
pub(super) struct Stand {
    client: Client,
    ingest: Service,
    settings: ServiceSettings,
    mariadb: MariaDbServer,
    _kafka: KafkaServer,
    _redis: RedisServer,
}

impl Stand {
    /// Servers as durable as in earnest, and an ingest replica with these tables enabled, each with its limit.
    ///
    /// # Errors
    /// If anything doesn't start.
    pub(super) async fn start(tables: &[(String, u32)]) -> Result<Self> {
        let (redis, kafka, mariadb) = tokio::try_join!(
            RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]),
            KafkaServer::start_with(&[("group.min.session.timeout.ms", "1000")]),
            MariaDbServer::start_with(&["--innodb-buffer-pool-size=256M"]),
        )?;
        mariadb.create_schema(SCHEMA).await?;
        let database =
            AnyDatabase::connect(DatabaseOptions::new(DatabaseName::new("main")?, mariadb.url(SCHEMA))).await?;
        let mut yaml = format!(
            "databases:\n  - name: main\n    url: {}\n    pool: 8\ntables:\n  per_table:\n",
            mariadb.url(SCHEMA)
        );
        mariadb
            .sql(
                SCHEMA,
                "CREATE TABLE audit (what VARCHAR(64) NOT NULL,
                    s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, e BIGINT UNSIGNED GENERATED ALWAYS AS ROW END,
                    PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING ENGINE = InnoDB",
            )
            .await?;
        for (table, rate) in tables {
            let ddl = "(grp BIGINT NOT NULL, id BIGINT NOT NULL, amount BIGINT NOT NULL, PRIMARY KEY (grp, id))";
            database.run_script(&format!("CREATE TABLE {table} {ddl}")).await?;
            database.add_version_column(&TableName::new(table)?).await?;
            writeln!(yaml, "    main.{table}: {{rows_per_second: {rate}, group_by: [grp], ttl: 1s}}")?;
        }
        let settings = ServiceSettings::new()
            .yaml(yaml)
            .set("redis.url", redis.url())
            .set("kafka.brokers", kafka.brokers())
            .set("kafka.allow_single_node", true)
            .set("kafka.session_timeout", "3s")
            .set("drain.batch_rows", 1000);
        let ingest = Service::start("ingest-svc", settings.clone()).await?;
        let client = Client::builder(ingest.api_url()).connections(4).timeout(PATIENCE).attempt_timeout(PATIENCE);
        let client = client.connect().await?;
        for (table, _) in tables {
            client.enable_table(TableRef::from(table.as_str())).await?;
            // Its rows are counted in the transaction that writes them.
            let trigger = format!(
                "CREATE TRIGGER audit_{table} AFTER INSERT ON {table} FOR EACH ROW INSERT INTO audit (what) VALUES ('{table}')"
            );
            mariadb.sql(SCHEMA, &trigger).await?;
        }
        Ok(Self { client, ingest, settings, mariadb, _kafka: kafka, _redis: redis })
    }

    /// Writes so many rows.
    ///
    /// # Errors
    /// If one is not acknowledged.
    pub(super) async fn write(&self, table: &str, rows: u32, one_shard: bool) -> Result<()> {
        let row = |n: u32| {
            let group = if one_shard { 0 } else { i64::from(n) };
            Row::new().set("grp", group).set("id", i64::from(n)).set("amount", 1_i64)
        };
        let writer = |writer: u32| async move {
            for from in (0..rows).step_by(AT_ONCE as usize).skip(writer as usize).step_by(WRITERS as usize) {
                let writes: Vec<Write> = (from..rows.min(from + AT_ONCE)).map(|n| Write::put(table, row(n))).collect();
                let results = self.client.batch_write(&writes).await;
                results.into_iter().collect::<Result<Vec<_>, _>>().context("a write was not acknowledged")?;
            }
            anyhow::Ok(())
        };
        try_join_all((0..WRITERS).map(writer)).await.map(drop)
    }

    /// So many drains, ready.
    ///
    /// # Errors
    /// If one can't be started.
    pub(super) async fn drains(&self, replicas: usize) -> Result<Replicas> {
        let mut drains = Replicas { running: Vec::new(), started: 0 };
        for _ in 0..replicas {
            drains.spawn(self)?;
        }
        try_join_all(drains.running.iter_mut().map(Service::ready)).await?;
        Ok(drains)
    }

    /// The database's clock, in microseconds since 1970.
    ///
    /// # Errors
    /// If it can't be asked.
    pub(super) async fn now(&self) -> Result<u64> {
        let now = self.mariadb.sql("", "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED)").await?;
        now.trim().parse().context("the database's clock")
    }

    /// The commits that wrote to a table, in order.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub(super) async fn commits(&self, table: &str) -> Result<Vec<Commit>> {
        let select = format!(
            "SELECT CAST(UNIX_TIMESTAMP(r.commit_timestamp) * 1000000 AS UNSIGNED), COUNT(*) FROM audit a
             JOIN mysql.transaction_registry r ON r.transaction_id = a.s WHERE a.what = '{table}'
             GROUP BY r.transaction_id, r.commit_timestamp ORDER BY 1"
        );
        let answer = self.mariadb.sql(SCHEMA, &select).await?;
        let commit = |line: &str| {
            let (at, rows) = line.split_once('\t').context("two columns")?;
            Ok((at.parse()?, rows.parse()?))
        };
        answer.lines().map(commit).collect::<Result<_>>().with_context(|| format!("the commits of {table}"))
    }

    /// Lets what is left of these tables through, so that it is in nobody's way.
    ///
    /// # Errors
    /// If that takes too long.
    pub(super) async fn empty(&self, tables: &[String]) -> Result<()> {
        for table in tables {
            self.client.set_table_rate(table.as_str(), Rate::Unlimited).await?;
        }
        let mut drains = self.drains(1).await?;
        let count = |table: &String| format!("(SELECT COUNT(*) FROM {table})");
        let left = format!("SELECT {}", tables.iter().map(count).collect::<Vec<_>>().join(" + "));
        let (begun, mut before) = (Instant::now(), String::new());
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = self.mariadb.sql(SCHEMA, &left).await?;
            if now == before {
                break;
            }
            before = now;
            ensure!(begun.elapsed() < PATIENCE, "the backlog was not drained within {PATIENCE:?}");
        }
        drains.stop().await
    }

    /// Stops ingest; the servers end with this.
    ///
    /// # Errors
    /// If it doesn't stop.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.ingest.stop().await.map(drop)
    }
}

/// The drains that run, the oldest first.
pub(super) struct Replicas {
    running: Vec<Service>,
    started: usize,
}

impl Replicas {
    fn spawn(&mut self, stand: &Stand) -> Result<()> {
        self.started += 1;
        let settings = stand.settings.clone().set("drain.replica", format!("drain-{}", self.started));
        self.running.push(Service::spawn("drain-svc", settings)?);
        Ok(())
    }

    /// Starts another one.
    pub(super) async fn add(&mut self, stand: &Stand) -> Result<()> {
        self.spawn(stand)?;
        match self.running.last_mut() {
            Some(newest) => newest.ready().await,
            None => Ok(()),
        }
    }

    /// Ends one as kill -9 does.
    pub(super) fn kill_oldest(&mut self) {
        self.running.remove(0).kill9();
    }

    /// Ends one in order.
    pub(super) async fn stop_oldest(&mut self) -> Result<()> {
        self.running.remove(0).stop().await.map(drop)
    }

    /// Ends the one that came last in order.
    pub(super) async fn stop_newest(&mut self) -> Result<()> {
        match self.running.pop() {
            Some(mut newest) => newest.stop().await.map(drop),
            None => Ok(()),
        }
    }

    /// Ends all in order.
    pub(super) async fn stop(&mut self) -> Result<()> {
        try_join_all(self.running.iter_mut().map(Service::stop)).await?;
        self.running.clear();
        Ok(())
    }
}
