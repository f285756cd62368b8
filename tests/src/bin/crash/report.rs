//! What came of a run.

use anyhow::Result;
use history::Findings;
use serde::Serialize;

use crate::{
    faults::{Fault, Survives, Victim},
    recorder::Tally,
};

/// How often what was done.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Injuries {
    pub(crate) killed_ingest: u64,
    pub(crate) killed_drain: u64,
    pub(crate) killed_redis: u64,
    pub(crate) redis_tail_cut: u64,
    pub(crate) redis_emptied: u64,
    pub(crate) killed_kafka: u64,
    pub(crate) killed_database: u64,
    pub(crate) killed_all: u64,
    pub(crate) frozen: u64,
    pub(crate) links_hurt: u64,
    pub(crate) clock_set: u64,
    /// Services that ended by themselves and were started again.
    pub(crate) ended_by_themselves: u64,
}

impl Injuries {
    pub(crate) fn count(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(Victim::Ingest(_)) => self.killed_ingest += 1,
            Fault::Kill(Victim::Drain(_)) => self.killed_drain += 1,
            Fault::Kill(Victim::Redis) => self.killed_redis += 1,
            Fault::Kill(Victim::Kafka) => self.killed_kafka += 1,
            Fault::Kill(Victim::Database) => self.killed_database += 1,
            Fault::KillRedis(survives) => self.count_redis(survives),
            Fault::KillOurs => {
                self.killed_ingest += 1;
                self.killed_drain += 1;
            }
            Fault::KillAll(survives) => {
                self.killed_all += 1;
                self.count_redis(survives);
            }
            Fault::Freeze(_) => self.frozen += 1,
            Fault::Weather(..) | Fault::Reset(_) => self.links_hurt += 1,
            Fault::SetClock { .. } => self.clock_set += 1,
        }
    }

    fn count_redis(&mut self, survives: Survives) {
        self.killed_redis += 1;
        match survives {
            Survives::Everything => {}
            Survives::Without { .. } => self.redis_tail_cut += 1,
            Survives::Nothing => self.redis_emptied += 1,
        }
    }
}

/// Seconds of something that was measured again and again.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Seconds {
    pub(crate) times: u64,
    pub(crate) mean: f64,
    pub(crate) longest: f64,
}

impl Seconds {
    pub(crate) fn add(&mut self, seconds: f64) {
        self.times += 1;
        self.mean += (seconds - self.mean) / self.times as f64;
        self.longest = self.longest.max(seconds);
    }
}

/// The figures of a run, in one object.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) cycles: u64,
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
    pub(crate) lost: usize,
    pub(crate) stale: usize,
    pub(crate) resurrected: usize,
    pub(crate) phantom: usize,
    pub(crate) out_of_order: usize,
    /// Cycles after which the system did not come back.
    pub(crate) stuck: u64,
    pub(crate) seconds: f64,
    #[serde(flatten)]
    pub(crate) injuries: Injuries,
    /// From the moment when every process answers again until the database has everything.
    pub(crate) seconds_from_heal_to_converged: Seconds,
    /// From kill -9 of a drain until what lies in its partitions is in the database.
    pub(crate) seconds_to_take_over: Seconds,
}

impl Report {
    pub(crate) fn add(&mut self, tally: Tally, findings: &Findings) {
        self.cycles += 1;
        self.acked += tally.acked;
        self.refused += tally.refused;
        self.unknown += tally.unknown;
        self.reads += tally.reads;
        self.lost += findings.lost.len();
        self.stale += findings.stale.len();
        self.resurrected += findings.resurrected.len();
        self.phantom += findings.phantom.len();
        self.out_of_order += findings.out_of_order.len();
    }

    /// # Errors
    /// If it can't be put into JSON.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
        } else {
            println!("{}", serde_json::to_string_pretty(self)?);
        }
        Ok(())
    }
}
