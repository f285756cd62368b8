//! A limit that follows how the database fares, between two bounds, one for all replicas.
//!
//! - `health`: how a database fares, by what this replica's own transactions tell.
//! - `law`: what limit follows from that, and from what is agreed on.

mod health;
mod law;

use std::{sync::Arc, time::Duration};

use hot_store::{AgreedLimit, Agreement, Budget, HotStoreError};
use model::DatabaseName;
use tokio::time::{self, Instant};

pub(crate) use health::Pulse;
pub(super) use health::is_trouble;
pub use law::Bounds;

use super::follow::tell;
use crate::parts::Parts;

/// How often each replica says how it finds a database, and follows what is agreed on.
const INTERVAL: Duration = Duration::from_millis(500);
/// How often a replica that another one was faster than looks again at once.
const TRIES: u32 = 3;

/// Keeps the limit of a database within these bounds by how it fares. While the hot store is away nothing is granted, and
/// the last known limit stays.
pub(crate) async fn heed_database<H: Budget, D>(parts: Arc<Parts<H, D>>, database: DatabaseName, bounds: Bounds) {
    let mut before: Option<f64> = None;
    let mut failing = false;
    loop {
        let settled = tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            settled = settle(&parts, &database, bounds) => settled,
        };
        match &settled {
            Ok(limit) => {
                let now = law::within(limit.per_second, bounds);
                follow(&parts, &database, now);
                note_turn(&database, bounds, before, now);
                before = Some(now);
            }
            Err(error) if !failing => {
                tracing::warn!(%database, %error, "how fast the database may be written is not agreed on; the last limit stays");
            }
            Err(_) => {}
        }
        failing = settled.is_err();
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = time::sleep(INTERVAL) => {}
        }
    }
}

/// Takes the next step from what is agreed on; answers what is agreed on then.
async fn settle<H: Budget, D>(
    parts: &Parts<H, D>,
    database: &DatabaseName,
    bounds: Bounds,
) -> Result<AgreedLimit, HotStoreError> {
    let mut tries = 0;
    loop {
        let Agreement { limit, now } = parts.hot.agreed(database.as_str()).await?;
        let at_lowest = limit.is_some_and(|limit| law::within(limit.per_second, bounds) <= bounds.min);
        let health = match parts.pulse(database) {
            Some(pulse) => pulse.health(Instant::now(), at_lowest),
            None => law::Health::Unclear,
        };
        let after = match limit {
            None => Some(law::begin(bounds, now)),
            Some(current) => law::next(current, health, bounds, now),
        };
        tries += 1;
        match (limit, after) {
            (Some(current), None) => return Ok(current),
            (_, Some(after)) if parts.hot.agree(database.as_str(), limit, after).await? => return Ok(after),
            // Another replica was faster; what it did counts.
            (Some(current), _) if tries == TRIES => return Ok(current),
            _ => {}
        }
    }
}

fn follow<H: Budget, D>(parts: &Parts<H, D>, database: &DatabaseName, per_second: f64) {
    parts.metrics.adaptive_limit(database, per_second);
    parts.board.adaptive_rate(database, Some(per_second));
    let rates = parts.gates.adapt(database, per_second, &parts.options);
    tell(parts, rates);
}

/// Tells operators of what they would ask about: when it begins to give way, and when it is back.
fn note_turn(database: &DatabaseName, bounds: Bounds, before: Option<f64>, now: f64) {
    let Some(before) = before else { return };
    let is_full = |limit: f64| limit >= bounds.max;
    if is_full(before) && !is_full(now) {
        tracing::warn!(%database, rows_per_second = now, "the database is in trouble; it is written more slowly");
    } else if !is_full(before) && is_full(now) {
        tracing::info!(%database, rows_per_second = now, "the database fares well; it is written at the highest limit");
    }
}
