//! Following what operators set and stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use database::{Database, DatabaseError, HoldKind, SetRate};
use hot_store::Budget;
use model::TableRef;
use tokio::time;

use super::gates::InForce;
use crate::{apply::without_values, parts::Parts, status::TableMetrics};

/// How often the limits and pauses are looked at; all replicas have a new one within twice this.
const INTERVAL: Duration = Duration::from_secs(1);

/// Puts the limits and pauses in force that operators have set. While the database that keeps them is away the last known ones stay.
pub(crate) async fn follow_rates<H: Budget, D: Database>(parts: Arc<Parts<H, D>>) {
    let (mut failing, mut known, mut unreadable) = (false, false, BTreeSet::new());
    loop {
        let set = tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            set = set_rates(&parts, &mut unreadable) => set,
        };
        match &set {
            Ok(()) if failing => tracing::info!("the limits and pauses that operators have set can be read again"),
            Err(error) if !failing => {
                let error = without_values(error);
                if known {
                    tracing::warn!(
                        error,
                        "the limits and pauses that operators have set can't be read; the last known ones stay in force"
                    );
                } else {
                    tracing::error!(
                        error,
                        "the limits and pauses that operators have set can't be read; until then no table is written"
                    );
                }
            }
            Ok(()) | Err(_) => {}
        }
        failing = set.is_err();
        known |= !failing;
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => return,
            () = time::sleep(INTERVAL) => {}
        }
    }
}

/// `unreadable` are the tables whose own limit could not be read the last time; only theirs is in doubt.
async fn set_rates<H: Budget, D: Database>(
    parts: &Parts<H, D>,
    unreadable: &mut BTreeSet<TableRef>,
) -> Result<(), DatabaseError> {
    let catalog = parts.directory.catalog_database()?;
    let (rates, holds) = (catalog.rates().await?, catalog.holds().await?);
    let before = std::mem::take(unreadable);
    let mut set: BTreeMap<TableRef, Option<SetRate>> = BTreeMap::new();
    for (table, rate) in rates {
        if let Err(error) = &rate {
            if !before.contains(&table) {
                let error = without_values(error);
                tracing::error!(
                    %table, error,
                    "what an operator has set for this table can't be read: its last known limit stays in force; who \
                     starts now writes nothing to it"
                );
            }
            unreadable.insert(table.clone());
        }
        set.insert(table, rate.ok());
    }
    for table in before.difference(unreadable) {
        tracing::info!(%table, "what is set for this table can be read again");
    }
    let pauses = holds.clone();
    let in_force = parts.gates.set(set, holds, &parts.options);
    for InForce { table, .. } in &in_force {
        let pause = pauses.of(HoldKind::Pause, table).next();
        parts.board.paused(table, pause.map(|pause| format!("{}: {}", pause.by, pause.reason)).as_deref());
    }
    tell(parts, in_force);
    Ok(())
}

/// Tells what is in force now.
pub(super) fn tell<H, D>(parts: &Parts<H, D>, in_force: Vec<InForce>) {
    for InForce { table, rates, batch_rows } in in_force {
        let limit = rates.rows_per_second();
        parts.metrics.of(&TableMetrics::new(&table)).limited(limit, batch_rows);
        parts.board.limited(&table, limit, batch_rows);
    }
}
