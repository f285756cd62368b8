//! Drains that come and go.

use std::process::ExitStatus;

use anyhow::Result;
use futures::future::try_join_all;
use shock_absorber_tests::Service;
use tokio::task::JoinSet;

use super::stand::Stand;

/// So many there are, give or take one.
const REPLICAS: usize = 3;

pub(super) struct Replicas {
    protocol: &'static str,
    /// The oldest first.
    running: Vec<Service>,
    started: usize,
    /// Those that were told to stop.
    stopping: JoinSet<Result<ExitStatus>>,
    /// When one was killed.
    kills: Vec<u64>,
    /// Those that had ended before anybody told them to.
    ended: usize,
}

impl Replicas {
    pub(super) async fn start(stand: &Stand, protocol: &'static str) -> Result<Self> {
        let (stopping, running) = (JoinSet::new(), Vec::new());
        let mut replicas = Self { protocol, running, started: 0, stopping, kills: Vec::new(), ended: 0 };
        for _ in 0..REPLICAS {
            replicas.add(stand)?;
        }
        try_join_all(replicas.running.iter_mut().map(Service::ready)).await?;
        Ok(replicas)
    }

    fn add(&mut self, stand: &Stand) -> Result<()> {
        self.started += 1;
        self.running.push(stand.drain(self.started, self.protocol)?);
        Ok(())
    }

    /// One joins, one is killed, one joins, one leaves, and so on.
    ///
    /// # Errors
    /// If one can't be started.
    pub(super) fn change(&mut self, turn: u32, stand: &Stand, now: u64) -> Result<()> {
        match turn % 4 {
            1 | 3 => return self.add(stand),
            2 => {
                if let Some(mut oldest) = self.oldest() {
                    oldest.kill9();
                    self.kills.push(now);
                }
            }
            _ => {
                if let Some(mut oldest) = self.oldest() {
                    self.stopping.spawn(async move { oldest.stop().await });
                }
            }
        }
        Ok(())
    }

    fn oldest(&mut self) -> Option<Service> {
        let mut oldest = (!self.running.is_empty()).then(|| self.running.remove(0))?;
        if !oldest.is_running() {
            eprintln!("  a replica had ended by itself:\n{}", oldest.log());
            self.ended += 1;
        }
        Some(oldest)
    }

    /// Stops those that are left. Says when one was killed, and how many have ended otherwise than told.
    ///
    /// # Errors
    /// If one does not stop.
    pub(super) async fn stop(mut self) -> Result<(Vec<u64>, usize)> {
        while let Some(mut one) = self.oldest() {
            self.stopping.spawn(async move { one.stop().await });
        }
        let mut unclean = self.ended;
        while let Some(status) = self.stopping.join_next().await {
            unclean += usize::from(!status??.success());
        }
        Ok((self.kills, unclean))
    }
}
