//! An orderly end in two stages.
//!
//! The first signal (or the failure of a task) makes all parts **stop**: they take nothing new and finish what they
//! have. When all work has ended, or the time for it is nearly up, the process is **ending**: whatever still runs
//! breaks off at its next safe point, and the background tasks that served the work go too. A second signal doesn't wait.
//! Whatever is left then is left as a crash leaves it, which loses nothing either; it is only slower to come back from.

use std::{
    fmt,
    future::Future,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Any error of a task.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// The tasks of a process, and the two tokens that tell them to end. A handle: clones share both.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    stopping: CancellationToken,
    ending: CancellationToken,
    work: TaskTracker,
    background: TaskTracker,
    failure: Arc<OnceLock<TaskFailure>>,
}

/// A task that ended the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFailure {
    /// Its name.
    pub task: &'static str,
    /// What went wrong in it.
    pub problem: String,
}

/// How it came to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All work was finished.
    Finished,
    /// The deadline passed with so many tasks unfinished.
    TimedOut {
        /// How many.
        unfinished: usize,
    },
    /// A second signal came.
    Forced,
    /// A task failed, so the process stopped. What others had was finished as far as time allowed.
    Failed(TaskFailure),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("stopped; all work was finished"),
            Self::TimedOut { unfinished } => {
                write!(f, "stopped at the deadline with {unfinished} tasks unfinished; what they had is redelivered")
            }
            Self::Forced => f.write_str("stopped at once by a second signal; what was unfinished is redelivered"),
            Self::Failed(TaskFailure { task, problem }) => write!(f, "stopped because {task} failed: {problem}"),
        }
    }
}

impl Ending {
    /// What the process tells its parent: 0 when all work was finished, or as shells and supervisors know it.
    pub fn code(&self) -> i32 {
        match self {
            Self::Finished => 0,
            Self::Failed(_) => 1,
            Self::TimedOut { .. } => 124,
            Self::Forced => 130,
        }
    }

    /// Ends the process now: a thread that blocks (a driver's, say) must not keep it.
    pub fn exit(&self) -> ! {
        if matches!(self, Self::Finished) {
            tracing::info!("{self}");
        } else {
            tracing::error!("{self}");
        }
        std::process::exit(self.code())
    }
}

/// Where requests to stop come from.
#[derive(Debug)]
pub struct Signals {
    requests: mpsc::Receiver<&'static str>,
}

impl Signals {
    /// SIGTERM and SIGINT of this process. From now on neither kills it.
    ///
    /// # Errors
    /// If the system refuses the handlers.
    pub fn of_process() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (signals, sender) = Self::by_hand();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    Some(()) = terminate.recv() => "SIGTERM",
                    Some(()) = interrupt.recv() => "SIGINT",
                    else => return,
                };
                if sender.send(name).await.is_err() {
                    return;
                }
            }
        });
        Ok(signals)
    }

    /// From whoever holds the sender: tests, and programs that have other reasons to stop.
    pub fn by_hand() -> (Self, mpsc::Sender<&'static str>) {
        let (sender, requests) = mpsc::channel(2);
        (Self { requests }, sender)
    }

    /// The next request; never, once nobody can send one.
    async fn next(&mut self) -> &'static str {
        match self.requests.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }
}

impl Shutdown {
    /// Nothing runs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes all parts stop, as the first signal does.
    pub fn begin(&self) {
        self.stopping.cancel();
    }

    /// Cancelled at the first stage: take nothing new, finish what is there.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Cancelled at the second stage: break off at the next safe point.
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// Runs a task whose work is worth finishing. It must end soon after [`Shutdown::stopping`]. If it fails or panics
    /// the process stops: half a service that looks alive is worse than none.
    pub fn spawn<F, E>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + Send + 'static,
    {
        self.work.spawn(self.clone().watch(name, task))
    }

    /// Runs a task that serves the others and outlives them: an admin listener, a connection's keeper. It must end soon
    /// after [`Shutdown::ending`].
    pub fn spawn_background<F, E>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + Send + 'static,
    {
        self.background.spawn(self.clone().watch(name, task))
    }

    async fn watch<F, E>(self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<TaskError> + Send + 'static,
    {
        // In a task of its own, so that a panic comes back as an error.
        let problem = match tokio::spawn(task).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(error.into().as_ref()),
            Err(join) if join.is_panic() => format!("it panicked: {}", panic_text(join.into_panic().as_ref())),
            Err(_) => return,
        };
        tracing::error!(task = name, problem, "a task failed; stopping");
        let _ = self.failure.set(TaskFailure { task: name, problem });
        self.begin();
    }

    /// Runs until a request to stop has come and been followed, at most `deadline` from then on.
    pub async fn run(&self, mut signals: Signals, deadline: Duration) -> Ending {
        tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "stopping; a second signal ends at once");
                self.begin();
            }
            () = self.stopping.cancelled() => {}
        }
        tokio::select! {
            ending = self.wind_down(deadline) => ending,
            name = signals.next() => {
                tracing::warn!(signal = name, "ending at once");
                self.ending.cancel();
                Ending::Forced
            }
        }
    }

    async fn wind_down(&self, deadline: Duration) -> Ending {
        self.work.close();
        self.background.close();
        // The last tenth is for breaking off.
        let last = deadline / 10;
        let in_time = timeout(deadline - last, self.work.wait()).await.is_ok();
        self.ending.cancel();
        let all = timeout(last, async { tokio::join!(self.work.wait(), self.background.wait()) }).await.is_ok();
        if let Some(failure) = self.failure.get() {
            Ending::Failed(failure.clone())
        } else if all && in_time {
            Ending::Finished
        } else {
            Ending::TimedOut { unfinished: self.work.len() + self.background.len() }
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many messages say their cause already.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn runs(shutdown: &Shutdown, deadline: Duration) -> (JoinHandle<Ending>, mpsc::Sender<&'static str>) {
        let (signals, sender) = Signals::by_hand();
        let shutdown = shutdown.clone();
        (tokio::spawn(async move { shutdown.run(signals, deadline).await }), sender)
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_finished_before_the_background_ends() {
        let shutdown = Shutdown::new();
        let order = Arc::new(AtomicUsize::new(0));
        shutdown.spawn("work", {
            let (stopping, ending, order) = (shutdown.stopping().clone(), shutdown.ending().clone(), order.clone());
            async move {
                stopping.cancelled().await;
                tokio::time::sleep(Duration::from_secs(5)).await;
                assert!(!ending.is_cancelled());
                assert_eq!(order.fetch_add(1, Ordering::SeqCst), 0);
                Ok::<_, Infallible>(())
            }
        });
        shutdown.spawn_background("background", {
            let (ending, order) = (shutdown.ending().clone(), order.clone());
            async move {
                ending.cancelled().await;
                assert_eq!(order.fetch_add(1, Ordering::SeqCst), 1);
                Ok::<_, Infallible>(())
            }
        });
        let (run, signal) = runs(&shutdown, DEADLINE);
        signal.send("SIGTERM").await.unwrap();
        assert_eq!(run.await.unwrap(), Ending::Finished);
        assert_eq!(order.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_the_rest_is_left() {
        let shutdown = Shutdown::new();
        shutdown.spawn("stuck", std::future::pending::<Result<(), Infallible>>());
        let (run, signal) = runs(&shutdown, DEADLINE);
        let begun = tokio::time::Instant::now();
        signal.send("SIGTERM").await.unwrap();
        assert_eq!(run.await.unwrap(), Ending::TimedOut { unfinished: 1 });
        assert_eq!(begun.elapsed().as_secs(), DEADLINE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_off_in_the_second_stage_still_counts_as_unfinished() {
        let shutdown = Shutdown::new();
        shutdown.spawn("slow", {
            let ending = shutdown.ending().clone();
            async move {
                ending.cancelled().await;
                Ok::<_, Infallible>(())
            }
        });
        let (run, signal) = runs(&shutdown, DEADLINE);
        signal.send("SIGTERM").await.unwrap();
        assert_eq!(run.await.unwrap(), Ending::TimedOut { unfinished: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_does_not_wait() {
        let shutdown = Shutdown::new();
        shutdown.spawn("stuck", std::future::pending::<Result<(), Infallible>>());
        let (run, signal) = runs(&shutdown, DEADLINE);
        let begun = tokio::time::Instant::now();
        signal.send("SIGINT").await.unwrap();
        shutdown.stopping().cancelled().await;
        signal.send("SIGINT").await.unwrap();
        assert_eq!(run.await.unwrap(), Ending::Forced);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(shutdown.ending().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_stops_the_process_and_is_named() {
        let shutdown = Shutdown::new();
        shutdown.spawn("relay", async { Err(io::Error::other("the log is gone")) });
        let (run, _signal) = runs(&shutdown, DEADLINE);
        let ending = run.await.unwrap();
        assert_eq!(ending, Ending::Failed(TaskFailure { task: "relay", problem: "the log is gone".into() }));
        assert_eq!(ending.code(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_stops_the_process_and_is_named() {
        let shutdown = Shutdown::new();
        shutdown.spawn("relay", async {
            assert!(shutdown_is_sane(), "an invariant broke");
            Ok::<_, Infallible>(())
        });
        let (run, _signal) = runs(&shutdown, DEADLINE);
        let Ending::Failed(failure) = run.await.unwrap() else { panic!("it should have failed") };
        assert!(failure.problem.contains("an invariant broke"), "{failure:?}");
    }

    fn shutdown_is_sane() -> bool {
        false
    }

    #[test]
    fn a_chain_of_errors_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);

        assert_eq!(chain(&Outer(io::Error::other("inner"))), "outer: inner");
        assert_eq!(chain(&io::Error::other("alone")), "alone");
    }
}
