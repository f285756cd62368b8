//! A database's one core, which all who want something of it share.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, sleep},
};

/// For so long one has it before the next one's turn comes.
const TURN: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub(crate) struct Core(Arc<Semaphore>);

/// Others, who want as much of it as they get, until this is dropped.
pub(crate) struct Others(Vec<JoinHandle<()>>, Arc<std::sync::Mutex<Vec<(Instant, Duration)>>>);

impl Core {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Something that takes so long where nobody else wants anything.
    pub(crate) async fn work(&self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            // Whoever waited longest is next.
            let _mine = self.0.acquire().await.unwrap();
            let turn = left.min(TURN);
            sleep(turn).await;
            left -= turn;
        }
    }

    /// So many others, each of whom asks for one thing after the other.
    pub(crate) fn others(&self, count: usize, each: Duration) -> Others {
        let took = Arc::new(std::sync::Mutex::new(Vec::new()));
        let one = || {
            let (core, took) = (self.clone(), took.clone());
            tokio::spawn(async move {
                loop {
                    let begun = Instant::now();
                    core.work(each).await;
                    took.lock().unwrap().push((begun, begun.elapsed()));
                }
            })
        };
        Others((0..count).map(|_| one()).collect(), took)
    }
}

impl Others {
    /// The 99th percentile of what began since then.
    pub(crate) fn p99(&self, since: Instant) -> Duration {
        let mut took: Vec<_> = self.1.lock().unwrap().iter().filter(|(at, _)| *at >= since).map(|(_, t)| *t).collect();
        assert!(took.len() >= 200, "{} are too few", took.len());
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
