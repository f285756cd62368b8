//! What the servers do by themselves, with the records that the system has just carried.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use database::{AnyDatabase, Batch, Change, Database as _, DatabaseRow, Owner, ShardClaim};
use futures::future::try_join_all;
use model::{
    Content, DatabaseName, Epoch, Event, EventBody, Image, Key, Mutation, Operation, ShardCount, TableName, Value,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpStream, tcp::OwnedReadHalf},
};

use crate::{
    Arguments, millis,
    report::{Report, Unit},
    stand::{Stand, schema},
};

/// Rows of a plain transaction: those of a drain's batch.
const ROWS: usize = 500;
/// Records that Kafka's own producer sends at least: with fewer its figure is that of a JVM that starts.
const PRODUCED: u32 = 200_000;

/// Measures each server.
///
/// # Errors
/// If one doesn't do it.
pub(crate) async fn measure(arguments: &Arguments, stand: &Stand, report: &mut Report) -> Result<()> {
    eprintln!("the servers by themselves");
    report.add("plain: one write of 4 KiB with fsync, median", millis(fsync(stand)?), Unit::Milliseconds);
    let changes = records(arguments, &stand.database).await?;
    for mode in ["always", "everysec"] {
        stand.redis.cli(&["CONFIG", "SET", "appendfsync", mode]).await?;
        let per_second = set(arguments, stand.redis.port(), &changes).await?;
        report.add(format!("plain: pipelined SET, appendfsync {mode}"), per_second, Unit::RecordsPerSecond);
    }
    let per_second = produce(arguments, stand, &changes).await?;
    report.add("plain: Kafka's own producer, acks=all", per_second, Unit::RecordsPerSecond);
    let per_second = apply(arguments, stand, changes).await?;
    report.add("plain: guarded upserts of 500 rows, one connection", per_second, Unit::RecordsPerSecond);
    Ok(())
}

/// What everything durable waits for.
fn fsync(stand: &Stand) -> Result<Duration> {
    let mut file = tempfile::tempfile_in(stand.redis.dir())?;
    let mut took = Vec::new();
    for _ in 0..101 {
        let begun = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took[took.len() / 2])
}

/// The records of the first phase, as the database has them now.
async fn records(arguments: &Arguments, database: &AnyDatabase) -> Result<Vec<Change>> {
    let schema = database.introspect(&DatabaseName::new("main")?, &TableName::new("payments")?).await?;
    let shards = ShardCount::new(arguments.shards.into())?;
    let load = arguments.load("always");
    let keys: Vec<Key> = (0..arguments.records).map(|nth| Key(vec![Value::Text(load.id(nth))])).collect();
    let mut changes = Vec::with_capacity(keys.len());
    for some in keys.chunks(ROWS) {
        for (key, found) in some.iter().zip(database.read(&schema, some).await?) {
            let DatabaseRow::Present { version, row } = found else {
                bail!("an acknowledged record is not in the database");
            };
            let image = Image {
                content: Content::Row(row),
                operation: Operation::Put,
                fingerprint: schema.fingerprint(),
                request: None,
                since: None,
            };
            changes.push(Change { shard: schema.shard_of(key, shards), key: key.clone(), version, image });
        }
    }
    Ok(changes)
}

/// As many writers as the load has, each pipelining a batch and waiting for its answers.
async fn set(arguments: &Arguments, port: u16, changes: &[Change]) -> Result<f64> {
    let batch = arguments.batch as usize;
    let mut pipelines: Vec<Vec<(Vec<u8>, usize)>> = vec![Vec::new(); arguments.writers as usize];
    for (nth, some) in changes.chunks(batch).enumerate() {
        let commands =
            some.iter().flat_map(|change| command(&change.key.to_bytes().as_bytes()[..], &change.image.encode()));
        pipelines[nth % arguments.writers as usize].push((commands.collect(), some.len()));
    }
    let begun = Instant::now();
    let writers = pipelines.into_iter().map(|pipelines| async move {
        let (read, mut write) = TcpStream::connect(("127.0.0.1", port)).await?.into_split();
        let mut read = BufReader::new(read);
        for (commands, count) in pipelines {
            write.write_all(&commands).await?;
            expect_ok(&mut read, count).await?;
        }
        anyhow::Ok(())
    });
    tokio::time::timeout(arguments.patience(), try_join_all(writers)).await??;
    Ok(changes.len() as f64 / begun.elapsed().as_secs_f64())
}

fn command(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut command = format!("*3\r\n$3\r\nSET\r\n${}\r\n", key.len() + 6).into_bytes();
    command.extend_from_slice(b"plain:");
    command.extend_from_slice(key);
    command.extend_from_slice(format!("\r\n${}\r\n", value.len()).as_bytes());
    command.extend_from_slice(value);
    command.extend_from_slice(b"\r\n");
    command
}

async fn expect_ok(read: &mut BufReader<OwnedReadHalf>, count: usize) -> Result<()> {
    const OK: &[u8; 5] = b"+OK\r\n";
    let mut answers = vec![0; count * OK.len()];
    read.read_exact(&mut answers).await?;
    ensure!(answers.chunks(OK.len()).all(|answer| answer == OK), "Redis did not take a plain SET");
    Ok(())
}

/// By the tool that comes with Kafka, into a topic of the same shape, records of the same size.
async fn produce(arguments: &Arguments, stand: &Stand, changes: &[Change]) -> Result<f64> {
    let first = changes.first().context("there is no record")?;
    let schema = stand.database.introspect(&DatabaseName::new("main")?, &TableName::new("payments")?).await?;
    let mutation =
        Mutation { table: schema.table, key: first.key.clone(), version: first.version, image: first.image.clone() };
    let event = Event { shard: first.shard, epoch: Epoch(1), body: EventBody::Mutations(vec![mutation]) };
    let bytes = event.encode().len() + first.key.to_bytes().as_bytes().len();
    let partitions = arguments.shards.to_string();
    let create = ["--create", "--topic", "plain", "--partitions", &partitions, "--replication-factor", "1"];
    stand.kafka.tool("TopicCommand", &create).await?;
    let (records, size) = (arguments.records.max(PRODUCED).to_string(), bytes.to_string());
    let mut send = vec!["--topic", "plain", "--num-records", &records, "--record-size", &size, "--throughput", "-1"];
    send.extend(["--command-property", "acks=all"]);
    let told = stand.kafka.tool("ProducerPerformance", &send).await?;
    // "30000 records sent, 41152.263374 records/sec (27.47 MB/sec), ..."
    let summary = told.lines().rfind(|line| line.contains("records/sec")).context("Kafka's producer told no rate")?;
    let (rate, _) = summary.split_once(" records/sec").unwrap_or_default();
    rate.rsplit(' ').next().and_then(|rate| rate.parse().ok()).with_context(|| format!("no rate in: {summary}"))
}

/// The drain's own transaction, without the drain: one connection, one batch after the other, an empty table.
async fn apply(arguments: &Arguments, stand: &Stand, changes: Vec<Change>) -> Result<f64> {
    let database = schema(&stand.mariadb, "plain", 1, arguments).await?;
    database.prepare().await?;
    let table = TableName::new("payments")?;
    let schema = database.introspect(&DatabaseName::new("main")?, &table).await?;
    let owner = Owner("plain".to_owned());
    let shards = ShardCount::new(arguments.shards.into())?;
    let claims: Vec<ShardClaim> = shards.all().map(|shard| ShardClaim { table: table.clone(), shard }).collect();
    database.take_ownership(&claims, &owner).await?;
    let begun = Instant::now();
    for some in changes.chunks(ROWS) {
        let mut shards: Vec<_> = some.iter().map(|change| change.shard).collect();
        shards.sort_unstable();
        shards.dedup();
        let owners = shards.into_iter().map(|shard| (shard, owner.clone())).collect();
        database.apply(Batch { schema: &schema, owners, changes: some }).await?;
        ensure!(begun.elapsed() < arguments.patience(), "plain upserts take longer than {:?}", arguments.patience());
    }
    Ok(changes.len() as f64 / begun.elapsed().as_secs_f64())
}
