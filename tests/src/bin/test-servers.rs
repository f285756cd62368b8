//! Starts the servers that tests need, prints where they are as shell variables, and keeps them until its input closes.

use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use futures::future::OptionFuture;
use shock_absorber_tests::{
    given,
    servers::{KafkaServer, MariaDbServer, MySqlServer, PostgresServer, RedisServer},
};
use tokio::signal::unix::{SignalKind, signal};

const SCHEMA: &str = "shock_absorber_test";

/// Start real servers for tests on free ports, until the standard input closes
#[derive(Parser)]
struct Arguments {
    /// Which servers
    #[arg(long, value_delimiter = ',', default_value = "redis,kafka,mariadb,postgres")]
    only: Vec<Server>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    Redis,
    Kafka,
    Mariadb,
    Mysql,
    Postgres,
}

#[tokio::main]
async fn main() -> Result<()> {
    let wanted = Arguments::parse().only;
    let wants = |server| wanted.contains(&server);
    let begun = Instant::now();
    let (redis, kafka, mariadb, mysql, postgres) = tokio::try_join!(
        started(wants(Server::Redis).then(RedisServer::start)),
        started(wants(Server::Kafka).then(KafkaServer::start)),
        started(wants(Server::Mariadb).then(mariadb)),
        started(wants(Server::Mysql).then(MySqlServer::start)),
        started(wants(Server::Postgres).then(postgres)),
    )?;
    if let Some(redis) = &redis {
        println!("export {}={}", given::REDIS, redis.url());
    }
    if let Some(kafka) = &kafka {
        println!("export {}={}", given::KAFKA, kafka.brokers());
    }
    if let Some(mariadb) = &mariadb {
        println!("export {}={}", given::MARIADB, mariadb.url(SCHEMA));
    }
    if let Some(mysql) = &mysql {
        // Its tests make schemas of their own.
        println!("export {}={}", given::MYSQL, mysql.url("mysql"));
    }
    if let Some(postgres) = &postgres {
        println!("export {}={}", given::POSTGRES, postgres.url(SCHEMA));
    }
    println!("# up after {:.1} s", begun.elapsed().as_secs_f64());

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let input_closes = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    tokio::select! {
        _ = input_closes => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // What was started is killed as it goes out of scope. A read of the input may still block a thread: so no waiting.
    drop((redis, kafka, mariadb, mysql, postgres));
    std::process::exit(0)
}

async fn mariadb() -> Result<MariaDbServer> {
    let server = MariaDbServer::start().await?;
    server.create_schema(SCHEMA).await?;
    Ok(server)
}

async fn postgres() -> Result<PostgresServer> {
    let server = PostgresServer::start().await?;
    server.create_database(SCHEMA).await?;
    Ok(server)
}

async fn started<T>(server: Option<impl Future<Output = Result<T>>>) -> Result<Option<T>> {
    OptionFuture::from(server).await.transpose()
}
