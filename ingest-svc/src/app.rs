//! The composition root of the ingest service.
//!
//! [`serve`] runs the service on any backends; the single-process edition uses it on memory, the embedded log and
//! SQLite. `servers` is the edition on real servers, the one place that names them.

mod options;
#[cfg(feature = "servers")]
mod servers;

use std::{future::Future, sync::Arc, time::Duration};

use database::{Database, TableDirectory};
use event_log::{EventPublisher, LogReader};
use hot_store::HotStore;
use runtime::{Readiness, ReadyPart, Settings, Shutdown};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

pub use options::OptionsError;
#[cfg(feature = "servers")]
pub use servers::{RunError, run};

use crate::{
    Core, IngestOptions, backlog,
    grpc::{self, ApiError, Gate},
    holds,
    opening::{self, checkpoint},
    relay,
    startup::{self, StartError},
    tables,
};

/// Between two attempts at a start that may succeed by itself.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why the service ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It can't start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The API failed.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// What the service has to get ready. Named before it is started, lest it be taken for ready meanwhile.
#[derive(Debug, Clone)]
pub struct ReadyParts {
    stores: ReadyPart,
    shards: ReadyPart,
}

impl ReadyParts {
    /// Names the parts.
    pub fn of(readiness: &Readiness) -> Self {
        Self { stores: readiness.part("stores"), shards: readiness.part("shards") }
    }
}

/// Puts the stores together as the settings say. The directory's first database holds the catalog; `log_retention` is
/// how long the log keeps what is not drained, if there is an end to that.
///
/// # Errors
/// If a name in the settings can't be used.
pub fn core<H, L, D>(
    settings: &Settings,
    hot: Arc<H>,
    log: Arc<L>,
    directory: Arc<TableDirectory<D>>,
    log_retention: Option<Duration>,
) -> Result<Core<H, L, D>, OptionsError> {
    let shards = options::shards(settings)?;
    let options = IngestOptions { log_retention, ..options::ingest(settings)? };
    Ok(Core::new(hot, log, directory, shards, options))
}

/// Runs the service until [`Shutdown::stopping`]: serves the API on `listener`, prepares the stores, then lets
/// requests in and keeps relay, openings, checkpoints and the list of tables going. At the end everything that was
/// let in is finished, and the log is flushed, as long as [`Shutdown::ending`] allows.
///
/// # Errors
/// See [`ServeError`]; stores that can't be reached are waited for.
pub async fn serve<H, L, D>(
    core: Arc<Core<H, L, D>>,
    settings: &Settings,
    listener: TcpListener,
    ready: ReadyParts,
    shutdown: &Shutdown,
) -> Result<(), ServeError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let gate = Gate::new(settings.ingest.max_in_flight);
    let stopping = shutdown.stopping();
    let api = grpc::serve(core.clone(), options::server(settings), listener, gate.clone(), stopping.clone());
    let work = async {
        let prepared = persist("preparing the stores", &ready.stores, stopping, || startup::prepare(&core)).await?;
        if prepared.is_some() {
            ready.stores.ready();
            start_loops(&core, &ready.shards, shutdown);
            gate.open();
        }
        Ok::<_, ServeError>(())
    };
    let ends_in_order = async {
        tokio::try_join!(async { Ok(api.await?) }, work)?;
        core.log.flush(settings.shutdown_deadline).await;
        Ok(())
    };
    tokio::select! {
        ended = ends_in_order => ended,
        () = shutdown.ending().cancelled() => Ok(()),
    }
}

/// What goes on behind the requests, until the last of them has been answered.
fn start_loops<H, L, D>(core: &Arc<Core<H, L, D>>, shards: &ReadyPart, shutdown: &Shutdown)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let ending = || shutdown.ending().clone();
    shutdown.spawn_background("opening of shards", endless(opening::run(core.clone(), ending())));
    shutdown.spawn_background("checkpoints", endless(checkpoint::run(core.clone(), ending())));
    shutdown.spawn_background("backlog", endless(backlog::run(core.clone(), ending())));
    shutdown.spawn_background("holds", endless(holds::run(core.clone(), ending())));
    shutdown.spawn_background("relay", endless(relay::run(core.clone(), ending())));
    shutdown.spawn_background("table refresh", endless(tables::run(core.clone(), ending())));
    shutdown.spawn_background("readiness", endless(report_shards(core.clone(), shards.clone(), ending())));
}

async fn endless(task: impl Future<Output = ()>) -> Result<(), std::convert::Infallible> {
    task.await;
    Ok(())
}

async fn report_shards<H, L, D>(core: Arc<Core<H, L, D>>, shards: ReadyPart, ending: CancellationToken) {
    let mut progress = core.opening_progress();
    loop {
        let now = *progress.borrow_and_update();
        if now.is_complete() {
            shards.ready();
        } else {
            shards.not_ready(format!("{} of {} are open", now.opened, now.total));
        }
        match ending.run_until_cancelled(progress.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// Tries until it succeeds, or fails in a way that trying again won't change; `None` if the service is stopped first.
async fn persist<T, F>(
    what: &str,
    part: &ReadyPart,
    stopping: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Result<Option<T>, StartError>
where
    F: Future<Output = Result<T, StartError>>,
{
    let attempts = async {
        loop {
            match attempt().await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "{what} failed; trying again");
                    part.not_ready(error.to_string());
                    sleep(START_AGAIN_AFTER).await;
                }
                outcome => return outcome,
            }
        }
    };
    stopping.run_until_cancelled(attempts).await.transpose()
}
