//! Servers, an ingest replica, drains, and others who use the same database.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use database::{AnyDatabase, Database as _, DatabaseOptions};
use futures::future::try_join_all;
use model::{DatabaseName, TableName};
use shock_absorber_client::{Client, Row, TableRef, Write};
use shock_absorber_tests::{
    Service, ServiceSettings,
    servers::{KafkaServer, MariaDbServer, RedisServer},
};
use tokio::process::Command;

const SCHEMA: &str = "shop";
const TABLES: [&str; 3] = ["orders_0", "orders_1", "orders_2"];
const REPLICAS: usize = 2;
const OTHERS: usize = 3;
const AT_ONCE: u32 = 500;
const PATIENCE: Duration = Duration::from_secs(300);
/// Rows of the table that everybody reads, and of the read that is measured to know how much a row of it costs.
const LEDGER: u32 = 50_000;
const SAMPLE: u32 = 5_000;
/// What one row of ours and one query of theirs takes of an idle core, in microseconds.
const ROW: f64 = 1_600.0;
const QUERY: f64 = 4_000.0;

/// Everything that runs but the drains.
pub(super) struct Stand {
    ingest: Service,
    settings: ServiceSettings,
    mariadb: MariaDbServer,
    _kafka: KafkaServer,
    _redis: RedisServer,
}

/// What the others have measured of their own queries: since the first one, and how long, in microseconds.
pub(super) struct Queries(Vec<(u64, u64)>);

impl Queries {
    /// The same without what began earlier than so long after the first one.
    pub(super) fn since(self, from: Duration) -> Self {
        self.split(from).1
    }

    /// What began before so long after the first one, and what later.
    pub(super) fn split(self, at: Duration) -> (Self, Self) {
        let (before, after) = self.0.into_iter().partition(|(began, _)| u128::from(*began) < at.as_micros());
        (Self(before), Self(after))
    }

    /// Their 99th percentile in milliseconds.
    ///
    /// # Errors
    /// If there are too few.
    pub(super) fn p99(&self) -> Result<f64> {
        let mut took: Vec<u64> = self.0.iter().map(|(_, took)| *took).collect();
        ensure!(took.len() >= 200, "{} queries are too few to tell a 99th percentile", took.len());
        took.sort_unstable();
        let p99 = took[took.len() * 99 / 100] as f64 / 1000.0;
        eprintln!("    p99 of {} queries: {p99:.1} ms", took.len());
        Ok(p99)
    }
}

impl Stand {
    /// Servers as durable as in earnest, and a backlog of so many rows in all.
    ///
    /// # Errors
    /// If anything doesn't start.
    pub(super) async fn start(rows: u32) -> Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        if cores > 1 {
            // All that is started from here on, too.
            keep_on(std::process::id(), &format!("1-{}", cores - 1)).await?;
        }
        let (redis, kafka, mariadb) = tokio::try_join!(
            RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]),
            KafkaServer::start_with(&[("group.min.session.timeout.ms", "1000")]),
            MariaDbServer::start_with(&["--innodb-buffer-pool-size=256M"]),
        )?;
        if cores > 1 {
            let pid = tokio::fs::read_to_string(mariadb.sql("", "SELECT @@pid_file").await?.trim()).await?;
            keep_on(pid.trim().parse()?, "0").await?;
        }
        mariadb.create_schema(SCHEMA).await?;
        let of_a_row = furnish(&mariadb).await?;
        let settings = ServiceSettings::new()
            .set("redis.url", redis.url())
            .set("kafka.brokers", kafka.brokers())
            .set("kafka.allow_single_node", true)
            .set("drain.rows_per_second", 0);
        let stand = settings.clone().yaml(configuration(&mariadb, ""));
        let ingest = Service::start("ingest-svc", stand).await?;
        let client = Client::builder(ingest.api_url()).connections(4).timeout(PATIENCE).attempt_timeout(PATIENCE);
        let client = client.connect().await?;
        for table in TABLES {
            client.enable_table(TableRef::from(table)).await?;
            let trigger =
                format!("CREATE TRIGGER of_{table} AFTER INSERT ON {table} FOR EACH ROW BEGIN {of_a_row} END");
            mariadb.sql(SCHEMA, &in_one(&trigger)).await?;
        }
        try_join_all(TABLES.map(|table| write(&client, table, rows / TABLES.len() as u32))).await?;
        Ok(Self { ingest, settings, mariadb, _kafka: kafka, _redis: redis })
    }

    /// The others at work for so long.
    ///
    /// # Errors
    /// If a query of theirs fails.
    pub(super) async fn others(&self, time: Duration) -> Result<Queries> {
        self.mariadb.sql(SCHEMA, "TRUNCATE took").await?;
        let call = format!("CALL compete({})", time.as_secs());
        try_join_all((0..OTHERS).map(|_| self.mariadb.sql(SCHEMA, &call))).await?;
        let select = "SELECT began - (SELECT MIN(began) FROM took), micros FROM took";
        let answer = self.mariadb.sql(SCHEMA, select).await?;
        let query = |line: &str| {
            let (at, took) = line.split_once('\t').context("two columns")?;
            Ok((at.parse()?, took.parse()?))
        };
        answer.lines().map(query).collect::<Result<_>>().map(Queries)
    }

    /// Drains, ready, with this setting of the database.
    ///
    /// # Errors
    /// If one can't be started.
    pub(super) async fn drains(&self, of_database: &str) -> Result<Drains> {
        let yaml = configuration(&self.mariadb, of_database);
        let start = |n: usize| {
            let settings = self.settings.clone().yaml(yaml.clone()).set("drain.replica", format!("drain-{n}"));
            Service::start("drain-svc", settings)
        };
        try_join_all((0..REPLICAS).map(start)).await.map(Drains)
    }

    /// Stops ingest; the servers end with this.
    ///
    /// # Errors
    /// If it doesn't stop.
    pub(super) async fn stop(&mut self) -> Result<()> {
        self.ingest.stop().await.map(drop)
    }
}

/// Drains at work.
pub(super) struct Drains(Vec<Service>);

impl Drains {
    /// Rows that they have written, by their own account.
    ///
    /// # Errors
    /// If one doesn't answer.
    pub(super) async fn rows_written(&self) -> Result<f64> {
        let texts = try_join_all(self.0.iter().map(Service::metrics)).await?;
        let lines = texts.iter().flat_map(|text| text.lines());
        let written = lines.filter(|line| line.starts_with("shock_absorber_drain_rows_written_total{"));
        written.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<f64>().context("a counter")).sum()
    }

    /// Ends them in order.
    ///
    /// # Errors
    /// If one doesn't.
    pub(super) async fn stop(&mut self) -> Result<()> {
        try_join_all(self.0.iter_mut().map(Service::stop)).await.map(drop)
    }
}

fn configuration(mariadb: &MariaDbServer, of_database: &str) -> String {
    let mut yaml = format!("databases:\n  - name: main\n    url: {}\n", mariadb.url(SCHEMA));
    if !of_database.is_empty() {
        // A String takes all that is written to it.
        let _ = writeln!(yaml, "    {of_database}");
    }
    yaml
}

/// The tables, and what the others do; answers what each row of ours does beside being written.
async fn furnish(mariadb: &MariaDbServer) -> Result<String> {
    mariadb
        .sql(
            SCHEMA,
            &format!(
                "CREATE TABLE ledger (id INT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL) ENGINE = InnoDB;
                 INSERT INTO ledger SELECT seq, seq FROM seq_1_to_{LEDGER};
                 CREATE TABLE balance (id INT NOT NULL PRIMARY KEY, amount BIGINT NOT NULL) ENGINE = InnoDB;
                 INSERT INTO balance SELECT seq, seq FROM seq_1_to_1000;
                 CREATE TABLE took (began BIGINT NOT NULL, micros BIGINT NOT NULL) ENGINE = MEMORY"
            ),
        )
        .await?;
    let moment = "CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS UNSIGNED)";
    let read = |rows: u32| format!("SELECT SUM(amount) INTO @sum FROM ledger WHERE id BETWEEN @at AND @at + {rows}");
    let from = |rows: u32| format!("SET @at = FLOOR(RAND() * {})", LEDGER - rows);
    let sample = format!(
        "CREATE PROCEDURE sample() BEGIN
           DECLARE n INT DEFAULT 0; DECLARE began BIGINT;
           WHILE n < 150 DO
             SET began = {moment}; {}; {}; INSERT INTO took VALUES (began, {moment} - began); SET n = n + 1;
           END WHILE;
         END",
        from(SAMPLE),
        read(SAMPLE),
    );
    mariadb.sql(SCHEMA, &in_one(&sample)).await?;
    let median = "SELECT micros FROM took ORDER BY micros LIMIT 1 OFFSET 75";
    let micros: f64 = mariadb.sql(SCHEMA, &format!("CALL sample(); {median}")).await?.trim().parse()?;
    let rows_that_take = |time: f64| ((time / micros * f64::from(SAMPLE)) as u32).clamp(10, LEDGER / 2);
    let (of_row, of_query) = (rows_that_take(ROW), rows_that_take(QUERY));
    let compete = format!(
        "CREATE PROCEDURE compete(IN seconds INT) BEGIN
           DECLARE began BIGINT; DECLARE until BIGINT DEFAULT {moment} + seconds * 1000000;
           REPEAT
             SET began = {moment};
             {}; {};
             UPDATE balance SET amount = amount + 1 WHERE id = 1 + FLOOR(RAND() * 1000);
             INSERT INTO took VALUES (began, {moment} - began);
           UNTIL began > until END REPEAT;
         END",
        from(of_query),
        read(of_query),
    );
    mariadb.sql(SCHEMA, &in_one(&compete)).await?;
    let options = DatabaseOptions::new(DatabaseName::new("main")?, mariadb.url(SCHEMA));
    let database = AnyDatabase::connect(options).await?;
    for table in TABLES {
        database.run_script(&format!("CREATE TABLE {table} (id BIGINT NOT NULL PRIMARY KEY, amount BIGINT)")).await?;
        database.add_version_column(&TableName::new(table)?).await?;
    }
    Ok(format!("{}; {};", from(of_row), read(of_row)))
}

/// Keeps a process with all its threads on these cores.
async fn keep_on(pid: u32, cores: &str) -> Result<()> {
    let mut command = Command::new("taskset");
    let output = command.args(["--all-tasks", "--cpu-list", "--pid", cores, &pid.to_string()]).output().await?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The command-line client splits at semicolons.
fn in_one(statement: &str) -> String {
    format!("DELIMITER $$\n{statement}$$\nDELIMITER ;")
}

async fn write(client: &Client, table: &str, rows: u32) -> Result<()> {
    for from in (0..rows).step_by(AT_ONCE as usize) {
        let row = |n: u32| Row::new().set("id", i64::from(n)).set("amount", 1_i64);
        let writes: Vec<Write> = (from..rows.min(from + AT_ONCE)).map(|n| Write::put(table, row(n))).collect();
        let results = client.batch_write(&writes).await;
        results.into_iter().collect::<Result<Vec<_>, _>>().context("a write was not acknowledged")?;
    }
    Ok(())
}
