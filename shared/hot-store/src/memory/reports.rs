//! Reports of drain replicas, in memory.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::{MAX_REPORTS, REPORT_TTL, ReplicaReport, SeenReport};

/// The last report of each replica, by its incarnation, and when it came.
#[derive(Debug, Default)]
pub(super) struct Reports(BTreeMap<String, (Instant, ReplicaReport)>);

impl Reports {
    pub(super) fn put(&mut self, report: &ReplicaReport) {
        let now = Instant::now();
        self.0.retain(|_, (at, _)| now.saturating_duration_since(*at) < REPORT_TTL);
        self.0.insert(report.incarnation.clone(), (now, report.clone()));
        while self.0.len() > MAX_REPORTS {
            let oldest = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(incarnation, _)| incarnation.clone());
            oldest.map(|incarnation| self.0.remove(&incarnation));
        }
    }

    pub(super) fn remove(&mut self, incarnation: &str) {
        self.0.remove(incarnation);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn list(&self) -> Vec<SeenReport> {
        let now = Instant::now();
        let seen = self.0.values().map(|(at, report)| (now.saturating_duration_since(*at), report));
        let kept = seen.filter(|(ago, _)| *ago < REPORT_TTL);
        let mut kept: Vec<_> = kept.map(|(ago, report)| SeenReport { report: report.clone(), ago }).collect();
        kept.sort_by(|a, b| a.name().cmp(&b.name()));
        kept
    }
}
