//! Following what operators stop.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::{Halt, HotStore};
use model::Shard;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{halt_of, tell};
use crate::Core;

/// How often it is looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells the shards of the hot store what operators have stopped, wherever that is not known there, until `shutdown`.
pub async fn run<H, L, D>(core: Arc<Core<H, L, D>>, shutdown: CancellationToken)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut follower = Follower::default();
    loop {
        let round = async {
            ticks.tick().await;
            follower.look(&core).await;
        };
        if shutdown.run_until_cancelled(round).await.is_none() {
            return;
        }
    }
}

/// What this replica has told which shard.
#[derive(Debug, Default)]
struct Follower {
    told: BTreeMap<Shard, Halt>,
    failing: bool,
}

impl Follower {
    async fn look<H: HotStore, L, D: Database>(&mut self, core: &Core<H, L, D>) {
        let asked = async {
            let holds = core.directory.catalog_database()?.holds().await?;
            halt_of(core, &holds).await
        };
        let halt = match asked.await {
            Ok(halt) => halt,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "what operators have stopped can't be read; what the hot store knows of it stays");
                }
                return;
            }
        };
        if std::mem::take(&mut self.failing) {
            tracing::info!("what operators have stopped can be read again");
        }
        // At revision 0 nothing was ever stopped. The tables of a wish may change though it does not: one that is stopped is
        // enabled again.
        let nothing = Halt::default();
        let ignorant: Vec<Shard> =
            core.shards.all().filter(|shard| *self.told.get(shard).unwrap_or(&nothing) != halt).collect();
        for (shard, told) in tell(core, ignorant, &halt).await {
            match told {
                Ok(in_force) => {
                    if in_force.revision > halt.revision {
                        tracing::warn!(
                            %shard, known = in_force.revision, kept = halt.revision,
                            "the hot store knows a later wish of an operator than the catalog, which was restored, perhaps; \
                             `shock-absorber drain-down --end` lets writes in again"
                        );
                    }
                    self.told.insert(shard, halt.clone());
                }
                // It is told the next time.
                Err(error) => tracing::debug!(%shard, %error, "a shard could not be told what is stopped"),
            }
        }
    }
}
