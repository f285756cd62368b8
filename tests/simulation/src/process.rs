//! A process that can be killed or stopped, and its way to the stores.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    climate::{End, Fate},
    nature::{Nature, Place, brief, lock},
};

/// An error with which a store may answer.
pub(crate) trait Fault: Send + 'static {
    /// Nothing was done.
    fn refused() -> Self;
    /// Nobody knows.
    fn unanswered() -> Self;
}

/// A process. All it does to the world goes through its calls to the stores; once it is killed none of them begins or
/// returns any more, which is all that others can see of its death.
pub(crate) struct Process {
    name: String,
    died: CancellationToken,
    stopped_until: Mutex<Option<Instant>>,
    nature: Arc<Nature>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Process {
    pub(crate) fn new(name: String, nature: Arc<Nature>) -> Arc<Self> {
        Arc::new(Self { name, died: CancellationToken::new(), stopped_until: Mutex::default(), nature })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn nature(&self) -> &Arc<Nature> {
        &self.nature
    }

    pub(crate) fn kill(&self) {
        self.died.cancel();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.died.is_cancelled()
    }

    pub(crate) async fn died(&self) {
        self.died.cancelled().await;
    }

    /// As SIGSTOP does, and SIGCONT after a while.
    pub(crate) fn stop_for(&self, how_long: Duration) {
        *lock(&self.stopped_until) = Some(Instant::now() + how_long);
    }

    pub(crate) fn go_on(&self) {
        *lock(&self.stopped_until) = None;
    }

    /// What a call asks for, if anybody wants to know.
    pub(crate) fn shown(&self, what: impl FnOnce() -> String) -> Shown {
        Shown(self.nature.is_traced().then(|| brief(&what())))
    }

    pub(crate) fn name_call(&self, what: Shown) -> Call {
        Call(what.0.map(|what| Arc::from(format!("{} {what}", self.name))))
    }

    /// Goes on when the process does; never, if it is dead.
    pub(crate) async fn turn(&self) {
        loop {
            if self.is_dead() {
                std::future::pending::<()>().await;
            }
            let until = *lock(&self.stopped_until);
            match until {
                Some(until) if until > Instant::now() => sleep_until(until).await,
                _ => return,
            }
        }
    }

    /// One call to a store. `effect` is what the store does when the call arrives there: it goes on if the caller is
    /// killed, or does not wait.
    pub(crate) async fn call<T, E, F>(self: &Arc<Self>, place: Place, what: Shown, effect: F) -> Result<T, E>
    where
        T: Send + fmt::Debug + 'static,
        E: Fault + fmt::Debug,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.turn().await;
        let fate = self.nature.fate(place);
        let call = self.name_call(what);
        let answer = self.undergo(fate, &call, effect).await;
        wait(fate.after).await;
        self.turn().await;
        self.nature.note(|| format!("{call} told {}", outcome(&answer)));
        answer
    }

    async fn undergo<T, E, F>(self: &Arc<Self>, fate: Fate, call: &Call, effect: F) -> Result<T, E>
    where
        T: Send + fmt::Debug + 'static,
        E: Fault + fmt::Debug,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.nature.note(|| format!("{call} sent {fate:?}"));
        match fate.end {
            End::Refused => return Err(E::refused()),
            End::Lost => return Err(E::unanswered()),
            End::Answered | End::Unanswered | End::Late(_) => {}
        }
        let (answer, answered) = oneshot::channel();
        let (process, call, under_way) = (self.clone(), call.clone(), self.nature.begin());
        tokio::spawn(async move {
            wait(fate.before).await;
            if let End::Late(by) = fate.end {
                wait(by).await;
            }
            if process.is_dead() && !fate.survives_caller {
                process.nature.note(|| format!("{call} dies with its process"));
                return;
            }
            let result = effect.await;
            process.nature.note(|| format!("{call} done {}", outcome(&result)));
            drop(under_way);
            // Nobody may be waiting any more.
            let _ = answer.send(result);
        });
        match fate.end {
            End::Late(_) => {
                wait(fate.before).await;
                Err(E::unanswered())
            }
            _ => match answered.await {
                Ok(result) if fate.end == End::Answered => result,
                _ => Err(E::unanswered()),
            },
        }
    }
}

/// What a call asks for, if that is traced.
#[derive(Debug)]
pub(crate) struct Shown(Option<String>);

/// A call's name in the trace, if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Call(Option<Arc<str>>);

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or_default())
    }
}

pub(crate) async fn wait(how_long: Duration) {
    if !how_long.is_zero() {
        sleep(how_long).await;
    }
}

fn outcome<T: fmt::Debug, E: fmt::Debug>(result: &Result<T, E>) -> String {
    brief(&format!("{result:?}"))
}
