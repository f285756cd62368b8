//! Taking partitions over, and following which tables there are.

use std::sync::Arc;

use database::{Database, DatabaseError, Owner, ShardClaim};
use model::{DatabaseName, Shard};
use tokio::time;

use crate::{
    gather::{Generation, Lane},
    parts::{Parts, Report},
};

/// Shards of one lane that were assigned together.
pub(crate) struct Takeover {
    pub(crate) lane: Arc<Lane>,
    pub(crate) shards: Vec<Shard>,
}

/// Writes this assignment into the shard rows of one database, however long the database is away; what was revoked
/// meanwhile is left out, for its next owner may have been there already. Then tells the consumer.
pub(crate) async fn take_over<H, D: Database>(
    parts: Arc<Parts<H, D>>,
    database: DatabaseName,
    mut takeovers: Vec<Takeover>,
    generation: Generation,
    owner: Owner,
) {
    let mut backoff = parts.backoff();
    loop {
        for Takeover { lane, shards } in &mut takeovers {
            lane.with(|gathered| shards.retain(|shard| gathered.is_assigned(*shard, generation)));
        }
        takeovers.retain(|takeover| !takeover.shards.is_empty());
        if takeovers.is_empty() {
            return;
        }
        let claim =
            |lane: &Lane, shard: &Shard| ShardClaim { table: lane.table.schema.table.table.clone(), shard: *shard };
        let claims: Vec<_> =
            takeovers.iter().flat_map(|t| t.shards.iter().map(|shard| claim(&t.lane, shard))).collect();
        let taken = async {
            match parts.directory.database(&database) {
                Some(database) => database.take_ownership(&claims, &owner).await,
                None => Err(DatabaseError::Unfit(format!("no database named {database} is configured"))),
            }
        };
        let error = tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            taken = taken => match taken {
                Ok(()) => break,
                Err(error) => error,
            },
        };
        if backoff.failures() == 0 {
            let partitions = claims.len();
            tracing::warn!(%database, partitions, %error, "partitions can't be taken over; they stand still until they can");
        }
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = time::sleep(backoff.next_delay()) => {}
        }
    }
    for Takeover { lane, shards } in takeovers {
        parts.report(Report::Owned { lane, shards, generation }).await;
    }
}

/// Looks again and again for tables that were enabled, disabled or altered.
pub(crate) async fn refresh_tables<H, D: Database>(parts: Arc<Parts<H, D>>) {
    let mut backoff = parts.backoff();
    loop {
        let refreshed = tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            refreshed = parts.directory.refresh(false) => refreshed,
        };
        let pause = match refreshed {
            Ok(_) => {
                if backoff.failures() > 0 {
                    tracing::info!("the catalog of tables can be read again");
                    backoff.reset();
                }
                parts.report(Report::Tables).await;
                parts.options.table_refresh
            }
            Err(error) => {
                if backoff.failures() == 0 {
                    tracing::warn!(%error, "the catalog of tables can't be read; what was known of it stays in use");
                }
                backoff.next_delay()
            }
        };
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = time::sleep(pause) => {}
        }
    }
}
