//! Reports of drain replicas in Redis: a key each with a TTL, and an index of those that have one.

use std::time::Duration;

use super::{keys, scripts, store::RedisStore};
use crate::{HotStoreError, MAX_REPORTS, REPORT_TTL, ReplicaReport, SeenReport};

impl RedisStore {
    pub(super) async fn store_report(&self, report: &ReplicaReport) -> Result<(), HotStoreError> {
        let text = serde_json::to_string(report)
            .map_err(|error| HotStoreError::Unavailable(format!("a report can't be written: {error}")))?;
        let call = scripts::REPORT.call(1).arg(keys::reports(self.prefix())).arg(&report.incarnation);
        self.call_beside(call.arg(text).arg(ttl_millis()).arg(MAX_REPORTS)).await?;
        Ok(())
    }

    pub(super) async fn remove_report(&self, incarnation: &str) -> Result<(), HotStoreError> {
        let call = scripts::WITHDRAW.call(1).arg(keys::reports(self.prefix())).arg(incarnation);
        self.call_beside(call).await?;
        Ok(())
    }

    pub(super) async fn list_reports(&self) -> Result<Vec<SeenReport>, HotStoreError> {
        let call = scripts::REPORTS.call(1).arg(keys::reports(self.prefix())).arg(ttl_millis());
        let mut reply = self.call_beside(call).await?;
        let mut seen = Vec::with_capacity(reply.len() / 2);
        while reply.len() > 0 {
            let ago = Duration::from_millis(reply.count()?);
            let text = reply.text()?.unwrap_or_default();
            match serde_json::from_str(&text) {
                Ok(report) => seen.push(SeenReport { report, ago }),
                // Of a release that writes it otherwise: the others are shown all the same.
                Err(error) => tracing::warn!(%error, "the report of a drain replica can't be read"),
            }
        }
        seen.sort_by(|a, b| a.name().cmp(&b.name()));
        Ok(seen)
    }
}

fn ttl_millis() -> u64 {
    REPORT_TTL.as_millis() as u64
}
