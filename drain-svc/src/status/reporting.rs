//! Telling operators what this replica knows about itself.

use std::{sync::Arc, time::Duration};

use hot_store::HotStore;
use tokio::time::{self, Instant};

use crate::parts::Parts;

/// How often it is told, and how long is waited for the store to take it: what does not get through is told with the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a replica that ends tries to say so; else its report goes by itself.
const PARTING: Duration = Duration::from_millis(500);

/// Puts the board into the hot store once a second. While that is away this replica is not listed, and nothing else.
pub(crate) async fn report_board<H: HotStore, D>(parts: Arc<Parts<H, D>>) {
    let chance = &parts.options.chance;
    let incarnation = format!("{:016x}", chance.token());
    let mut failing = false;
    while !parts.stop.is_cancelled() {
        let report = parts.board.report(&parts.options.replica, &incarnation, Instant::now());
        let told = tokio::select! {
            biased;
            () = parts.stop.cancelled() => break,
            told = time::timeout(INTERVAL, parts.hot.report(&report)) => told,
        };
        let problem = match told {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("it did not answer in time".to_owned()),
        };
        if let Some(problem) = problem.as_ref().filter(|_| !failing) {
            tracing::info!(
                problem,
                "the hot store does not take what this replica tells of itself: `status` does not list it"
            );
        }
        failing = problem.is_some();
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => break,
            () = time::sleep(INTERVAL) => {}
        }
    }
    // Nobody waits for more than that: the report has a TTL.
    let _ = time::timeout(PARTING, parts.hot.withdraw_report(&incarnation)).await;
}
