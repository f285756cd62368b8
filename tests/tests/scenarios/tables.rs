//! Tables are enabled and disabled while running.

use std::time::Duration;

use anyhow::Result;
use shock_absorber_client::{Reason, TableRef};
use shock_absorber_tests::{System, eventually};

use super::payments::{assert_refused, drained, key, payment, read_status};

pub(crate) async fn tables_are_enabled_and_disabled_for_good(system: &mut System) -> Result<()> {
    let payments = TableRef::from("payments");
    system.client.put("payments", payment("p1", "1.00")).await?;
    let other = if system.is_embedded() { system.client.clone() } else { system.another_ingest().await? };
    system.client.disable_table(&payments).await?;
    assert_refused(system.client.put("payments", payment("p2", "1.00")).await, Reason::TableNotEnabled);
    eventually("refusal by the other replica", Duration::from_secs(60), || async {
        let refused = other.get("payments", key("p1")).await.is_err_and(|e| e.is(Reason::TableNotEnabled));
        Ok(refused.then_some(()))
    })
    .await?;
    system.kill_and_restart().await?;
    assert_refused(system.client.put("payments", payment("p2", "1.00")).await, Reason::TableNotEnabled);
    assert!(!system.client.get_table(&payments).await?.enabled);
    system.client.enable_table(&payments).await?;
    assert_eq!(read_status(system, "p1").await?.as_deref(), Some("INITIATED"));
    system.client.put("payments", payment("p2", "1.00")).await?;
    drained(system, "SELECT COUNT(*) FROM payments", 2).await
}
