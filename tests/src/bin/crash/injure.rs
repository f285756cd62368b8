//! Does to the stand what was planned, and heals it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use history::Span;
use shock_absorber_tests::{Service, eventually, proxy::Weather};
use tokio::time::{Instant, sleep_until};

use crate::{
    faults::{Fault, Planned, Survives, Victim},
    recorder::Recorder,
    report::Injuries,
    stand::Stand,
};

/// A service that ends by itself is started again, so often at most in one healing.
const RELAUNCHES: u32 = 20;
const HEALED_WITHIN: Duration = Duration::from_secs(90);

/// A Redis that was killed, and with what it comes back.
#[derive(Debug, Clone, Copy)]
struct Killed {
    at: u64,
    survives: Survives,
}

pub(crate) struct Injurer<'a> {
    stand: &'a mut Stand,
    recorder: &'a Recorder,
    injuries: &'a mut Injuries,
    redis: Option<Killed>,
    /// What its file was long when the cycle began.
    tail_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin(Fault),
    End(Fault),
}

impl<'a> Injurer<'a> {
    pub(crate) fn new(stand: &'a mut Stand, recorder: &'a Recorder, injuries: &'a mut Injuries) -> Result<Self> {
        let tail_bytes = stand.redis.tail_bytes()?;
        Ok(Self { stand, recorder, injuries, redis: None, tail_bytes })
    }

    /// Runs a plan to its end.
    pub(crate) async fn run(&mut self, plan: &[Planned]) -> Result<()> {
        let begun = Instant::now();
        let mut steps: Vec<(Duration, Step)> =
            plan.iter().flat_map(|p| [(p.from, Step::Begin(p.fault)), (p.to, Step::End(p.fault))]).collect();
        steps.sort_by_key(|(at, _)| *at);
        for (at, step) in steps {
            sleep_until(begun + at).await;
            match step {
                Step::Begin(fault) => self.begin(fault)?,
                Step::End(fault) => self.end(fault)?,
            }
        }
        Ok(())
    }

    fn begin(&mut self, fault: Fault) -> Result<()> {
        self.injuries.count(fault);
        match fault {
            Fault::Kill(victim) => self.kill(victim),
            Fault::KillRedis(survives) => self.kill_redis(survives),
            Fault::KillOurs => self.ours().into_iter().for_each(|victim| self.kill(victim)),
            Fault::KillAll(survives) => {
                self.kill_redis(survives);
                self.kill(Victim::Kafka);
                self.kill(Victim::Database);
                self.ours().into_iter().for_each(|victim| self.kill(victim));
            }
            Fault::Freeze(victim) => self.freeze(victim, true),
            Fault::Weather(link, weather) => self.stand.links[&link].set(weather),
            Fault::Reset(link) => self.stand.links[&link].reset(),
            Fault::SetClock { seconds } => self.stand.redis.set_clock(seconds)?,
        }
        Ok(())
    }

    fn end(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Kill(victim) => self.relaunch(victim),
            Fault::KillRedis(_) => self.relaunch(Victim::Redis),
            Fault::KillOurs => self.ours().into_iter().try_for_each(|victim| self.relaunch(victim)),
            Fault::KillAll(_) => {
                let stores = [Victim::Redis, Victim::Kafka, Victim::Database];
                stores.into_iter().chain(self.ours()).try_for_each(|victim| self.relaunch(victim))
            }
            Fault::Freeze(victim) => {
                self.freeze(victim, false);
                Ok(())
            }
            Fault::Weather(link, weather) => {
                let proxy = &self.stand.links[&link];
                proxy.set(Weather::Fair);
                // What was held back may come through late, or be gone.
                if weather == Weather::Stalled && self.recorder.now().is_multiple_of(2) {
                    proxy.reset();
                }
                Ok(())
            }
            Fault::Reset(_) | Fault::SetClock { .. } => Ok(()),
        }
    }

    fn ours(&self) -> Vec<Victim> {
        let ingests = (0..self.stand.ingests.len()).map(Victim::Ingest);
        ingests.chain((0..self.stand.drains.len()).map(Victim::Drain)).collect()
    }

    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Ingest(n) => self.stand.ingests[n].kill9(),
            Victim::Drain(n) => self.stand.drains[n].kill9(),
            Victim::Redis => self.kill_redis(Survives::Everything),
            Victim::Kafka => self.stand.kafka.kill9(),
            Victim::Database => self.stand.mariadb.kill9(),
        }
    }

    fn kill_redis(&mut self, survives: Survives) {
        let at = self.recorder.now();
        self.stand.redis.kill9();
        // Killed twice before it came back: what was lost once is lost.
        if self.redis.is_none_or(|killed| killed.survives == Survives::Everything) {
            self.redis = Some(Killed { at, survives });
        }
    }

    fn relaunch(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Ingest(n) => self.stand.ingests[n].relaunch(),
            Victim::Drain(n) => self.stand.drains[n].relaunch(),
            Victim::Kafka => self.stand.kafka.relaunch(),
            Victim::Database => self.stand.mariadb.relaunch(),
            Victim::Redis => {
                // Without a note it is back already, by the end of another fault.
                let Some(killed) = self.redis.take() else { return Ok(()) };
                match killed.survives {
                    Survives::Everything => {}
                    Survives::Without { thousandths } => {
                        let grown = self.stand.redis.tail_bytes()?.saturating_sub(self.tail_bytes).max(1_000);
                        self.stand.redis.cut_tail((grown * thousandths / 1_000).max(1))?;
                    }
                    Survives::Nothing => self.stand.redis.empty()?,
                }
                if killed.survives != Survives::Everything {
                    self.recorder.loss(Span::new(killed.at, self.recorder.now()));
                }
                self.stand.redis.relaunch()
            }
        }
    }

    fn freeze(&self, victim: Victim, frozen: bool) {
        macro_rules! set {
            ($process:expr) => {
                if frozen { $process.freeze() } else { $process.thaw() }
            };
        }
        match victim {
            Victim::Ingest(n) => set!(self.stand.ingests[n]),
            Victim::Drain(n) => set!(self.stand.drains[n]),
            Victim::Redis => set!(self.stand.redis),
            Victim::Kafka => set!(self.stand.kafka),
            Victim::Database => set!(self.stand.mariadb),
        }
    }

    /// Waits until everything runs and answers.
    pub(crate) async fn heal(&mut self) -> Result<()> {
        for proxy in self.stand.links.values() {
            proxy.set(Weather::Fair);
        }
        let stand = &mut *self.stand;
        let ended = &mut self.injuries.ended_by_themselves;
        // Where it was killed while it wrote its file anew and that was torn, it mends the file and wants a second start.
        if stand.redis.answers().await.is_err() {
            *ended += 1;
            stand.redis.relaunch()?;
        }
        tokio::try_join!(stand.redis.answers(), stand.kafka.answers(), stand.mariadb.answers())?;
        for services in [&mut stand.ingests, &mut stand.drains] {
            let readied = try_join_all(services.iter_mut().map(ready)).await?;
            *ended += readied.into_iter().map(u64::from).sum::<u64>();
        }
        Ok(())
    }
}

/// Waits until a service is ready; starts it again if it has ended by itself, as a supervisor would. Says how often.
async fn ready(service: &mut Service) -> Result<u32> {
    let mut relaunches = 0;
    let deadline = Instant::now() + HEALED_WITHIN;
    loop {
        if !service.is_running() {
            relaunches += 1;
            anyhow::ensure!(relaunches <= RELAUNCHES, "a service ends again and again; its log:\n{}", service.log());
            service.relaunch()?;
        }
        let admin = service.admin();
        let asked = eventually("readiness", Duration::from_secs(1), || async move {
            let answer = shock_absorber_tests::http::get(admin, "/readyz").await;
            Ok(matches!(answer, Ok((200, _))).then_some(()))
        });
        match asked.await {
            Ok(()) => return Ok(relaunches),
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .with_context(|| format!("a service does not get ready; its log:\n{}", service.log()));
            }
            Err(_) => {}
        }
    }
}
