//! The composition root of the drain service: the one place that names its servers.

mod options;

use std::{sync::Arc, time::Duration};

use database::{AnyDatabase, TableDirectory};
use event_log::kafka::{KafkaLog, KafkaSource};
use hot_store::redis::RedisStore;
use model::{InvalidName, ShardCountError};
use runtime::{Readiness, ReadyPart, Settings, Shutdown, admin, config::HostNameUnknown, telemetry::Metrics};
use tokio::time::sleep;

use crate::{
    Drain, DrainError, DrainOptions, DrainParts,
    startup::{self, StartError},
};

/// Between two attempts at a start that may succeed by itself.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why the service ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The number of shards can't be used.
    #[error("`shards`: {0}")]
    Shards(#[from] ShardCountError),
    /// The name of a database can't be used.
    #[error("`databases`: {0}")]
    DatabaseName(#[from] InvalidName),
    /// This replica's name can't be made.
    #[error(transparent)]
    HostName(#[from] HostNameUnknown),
    /// The admin listener can't listen.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// It can't start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The drain failed.
    #[error(transparent)]
    Drain(#[from] DrainError),
}

/// Connects to the servers, waiting for those that can't be reached yet, and drains until [`Shutdown::stopping`].
///
/// # Errors
/// See [`RunError`].
pub async fn run(settings: Settings, metrics: Metrics, shutdown: Shutdown) -> Result<(), RunError> {
    let plan = options::Plan::of(&settings)?;
    let readiness = Readiness::new();
    let stores = readiness.part("stores");
    let admin = admin::serve(settings.drain.admin_listen, metrics, readiness, &shutdown).await?;
    tracing::info!(%admin, "listening");

    let connecting = connect(&plan, &stores);
    let Some(connected) = shutdown.stopping().run_until_cancelled(connecting).await.transpose()? else {
        return Ok(());
    };
    stores.ready();
    let options = DrainOptions::from_settings(&settings);
    tracing::info!(replica = options.replica, "draining begins");
    let (hot, source, log, directory) = connected;
    Drain::new(DrainParts { hot, source, log, directory, options }).run(shutdown.stopping().clone()).await?;
    Ok(())
}

type Connected = (Arc<RedisStore>, KafkaSource, Arc<KafkaLog>, Arc<TableDirectory<AnyDatabase>>);

/// Tries until it succeeds, or fails in a way that trying again won't change.
async fn connect(plan: &options::Plan, part: &ReadyPart) -> Result<Connected, StartError> {
    loop {
        match connect_once(plan).await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "connecting to the servers failed; trying again");
                part.not_ready(error.to_string());
                sleep(START_AGAIN_AFTER).await;
            }
            outcome => return outcome,
        }
    }
}

async fn connect_once(plan: &options::Plan) -> Result<Connected, StartError> {
    let hot = RedisStore::connect(plan.redis.clone()).await?;
    let mut databases = Vec::with_capacity(plan.databases.len());
    for options in &plan.databases {
        databases.push((options.name.clone(), Arc::new(AnyDatabase::connect(options.clone()).await?)));
    }
    let directory = TableDirectory::new(databases).leaving_out_what_cant_be_used();
    startup::prepare(&hot, &directory, plan.shards).await?;
    let log = KafkaLog::connect(plan.kafka.clone()).await?;
    // It joins the group when it subscribes, and so can't fail for want of a broker.
    let source = KafkaSource::join(&plan.kafka)?;
    Ok((Arc::new(hot), source, Arc::new(log), Arc::new(directory)))
}
