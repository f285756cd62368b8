//! One multiplexed connection that is made anew when it breaks.
//!
//! It tells two failures apart that the client library's own manager doesn't: before the call was handed to a
//! connection nothing can have been done ([`HotStoreError::Unavailable`]); afterwards it may have been
//! ([`HotStoreError::Unknown`]). Nothing is ever sent a second time, but for a script that the server said it had not
//! run.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind,
    Value, aio::MultiplexedConnection,
};
use tokio::time::Instant;

use super::{scripts::Call, torn_file::TornFile};
use crate::HotStoreError;

/// After a failed attempt nobody tries again for so long: callers are refused at once instead of queueing up.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Calls that may wait to be written to one connection.
const WRITE_QUEUE: usize = 256;

/// A connection, and whether the library has reported its end.
#[derive(Clone)]
struct Live {
    number: u64,
    connection: MultiplexedConnection,
    ended: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    failed: Option<(Instant, String)>,
    made: u64,
}

/// The connection.
pub(super) struct Link {
    client: Client,
    connect_timeout: Duration,
    response_timeout: Duration,
    torn_file: Arc<TornFile>,
    state: Mutex<State>,
    /// Held by whoever connects, so that one does and the others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

impl Link {
    pub(super) fn new(
        info: ConnectionInfo,
        connect_timeout: Duration,
        response_timeout: Duration,
        torn_file: Arc<TornFile>,
    ) -> Result<Self, HotStoreError> {
        let client = Client::open(info).map_err(|e| HotStoreError::Unavailable(e.to_string()))?;
        let (state, connecting) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { client, connect_timeout, response_timeout, torn_file, state, connecting })
    }

    /// Calls a script; makes it known first where the server has forgotten it.
    pub(super) async fn call(&self, call: Call) -> Result<Value, HotStoreError> {
        match self.send(call.command()).await {
            Err(Failure::Refused(error)) if is_forgotten(&error) => {
                self.send(&call.load_command()).await?;
                Ok(self.send(call.command()).await?)
            }
            result => Ok(result?),
        }
    }

    /// Calls scripts in one pipeline, one round trip for all of them; once more for those that the server has forgotten.
    /// For scripts that change nothing: where the connection breaks, nobody knows which of them were run.
    pub(super) async fn call_all(&self, calls: &[&Call]) -> Vec<Result<Value, HotStoreError>> {
        let mut answers = self.send_all(calls).await;
        let forgotten: Vec<usize> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| matches!(answer, Err(Failure::Refused(error)) if is_forgotten(error)))
            .map(|(at, _)| at)
            .collect();
        if let Some(&first) = forgotten.first() {
            let again: Vec<&Call> = forgotten.iter().map(|&at| calls[at]).collect();
            let repeated = match self.send(&calls[first].load_command()).await {
                Ok(_) => self.send_all(&again).await,
                Err(failure) => {
                    let error = HotStoreError::from(failure);
                    return answers.into_iter().map(|answer| answer.map_err(|_| error.clone())).collect();
                }
            };
            for (at, answer) in forgotten.into_iter().zip(repeated) {
                answers[at] = answer;
            }
        }
        answers.into_iter().map(|answer| answer.map_err(HotStoreError::from)).collect()
    }

    async fn send_all(&self, calls: &[&Call]) -> Vec<Result<Value, Failure>> {
        let all = |failure: Failure| calls.iter().map(|_| Err(failure.again())).collect();
        let mut live = match self.connection().await {
            Ok(live) => live,
            Err(failure) => return all(failure),
        };
        let mut pipeline = ::redis::Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.add_command(call.command().clone());
        }
        match live.connection.send_packed_commands(&pipeline, 0, calls.len()).await {
            Ok(values) if values.len() == calls.len() => values
                .into_iter()
                .map(|value| match value {
                    Value::ServerError(error) => Err(Failure::Refused(error.into())),
                    value => Ok(value),
                })
                .collect(),
            Ok(values) => {
                let problem = format!("{} answers to a pipeline of {} calls", values.len(), calls.len());
                self.abandon(live.number);
                all(Failure::Broken(RedisError::from((ErrorKind::UnexpectedReturnType, "a pipeline", problem))))
            }
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                all(Failure::Refused(error))
            }
            Err(error) => {
                self.abandon(live.number);
                all(Failure::Broken(error))
            }
        }
    }

    /// Sends a plain command. Unlike a script, one that the server answers with an error has done nothing.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, HotStoreError> {
        self.send(command).await.map_err(|failure| match failure {
            Failure::Refused(error) => match refusal(&error) {
                HotStoreError::Unknown(problem) => HotStoreError::Unavailable(problem),
                other => other,
            },
            other => other.into(),
        })
    }

    /// Calls one script several times in one pipeline, all over the same connection. For a script that changes nothing.
    pub(super) async fn call_together(&self, calls: &[&Call]) -> Result<Vec<Value>, HotStoreError> {
        let mut is_loaded = false;
        loop {
            let answers: Result<Vec<Value>, Failure> = self.send_all(calls).await.into_iter().collect();
            match (answers, calls.first()) {
                (Err(Failure::Refused(error)), Some(call)) if is_forgotten(&error) && !is_loaded => {
                    is_loaded = true;
                    self.send(&call.load_command()).await?;
                }
                (answers, _) => return Ok(answers?),
            }
        }
    }

    /// See [`TornFile::leave_behind`].
    pub(super) async fn leave_torn_file_behind(&self) -> Result<(), HotStoreError> {
        let mut live = self.connection().await?;
        self.torn_file.leave_behind(&mut live.connection).await.map_err(HotStoreError::Unavailable)
    }

    async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let mut live = self.connection().await?;
        match live.connection.send_packed_command(command).await {
            Ok(Value::ServerError(error)) => Err(Failure::Refused(error.into())),
            Ok(value) => Ok(value),
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                Err(Failure::Refused(error))
            }
            Err(error) => {
                // Also after a timeout: a connection whose far end has vanished would time out for a quarter of an hour.
                self.abandon(live.number);
                Err(Failure::Broken(error))
            }
        }
    }

    /// A connection that the caller has to itself.
    pub(super) async fn exclusive(&self) -> Result<MultiplexedConnection, HotStoreError> {
        self.connect(self.config()).await.map_err(HotStoreError::Unavailable)
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout))
            .set_pipeline_buffer_size(WRITE_QUEUE)
    }

    async fn connect(&self, config: AsyncConnectionConfig) -> Result<MultiplexedConnection, String> {
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connection.map_err(|e| e.to_string())?;
        self.torn_file.leave_behind(&mut connection).await?;
        Ok(connection)
    }

    async fn connection(&self) -> Result<Live, Failure> {
        if let Some(live) = self.usable()? {
            return Ok(live);
        }
        let _turn = self.connecting.lock().await;
        if let Some(live) = self.usable()? {
            return Ok(live);
        }
        let ended = Arc::new(AtomicBool::new(false));
        let noticed = Arc::clone(&ended);
        let config = self.config().set_push_sender(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                noticed.store(true, Ordering::Release);
            }
            Ok::<(), std::convert::Infallible>(())
        });
        match self.connect(config).await {
            Ok(connection) => {
                let mut state = self.state();
                state.made += 1;
                let live = Live { number: state.made, connection, ended };
                state.live = Some(live.clone());
                state.failed = None;
                Ok(live)
            }
            Err(problem) => {
                self.state().failed = Some((Instant::now(), problem.clone()));
                Err(Failure::Unreachable(problem))
            }
        }
    }

    /// The connection that is there; none if one has to be made; an error if that was tried just now.
    fn usable(&self) -> Result<Option<Live>, Failure> {
        let mut state = self.state();
        state.live = state.live.take().filter(|live| !live.ended.load(Ordering::Acquire));
        match (&state.live, &state.failed) {
            (Some(live), _) => Ok(Some(live.clone())),
            (None, Some((at, problem))) if at.elapsed() < RETRY_PAUSE => Err(Failure::Unreachable(problem.clone())),
            (None, _) => Ok(None),
        }
    }

    fn abandon(&self, number: u64) {
        let mut state = self.state();
        state.live = state.live.take().filter(|live| live.number != number);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a command got no answer that counts.
enum Failure {
    /// No connection: it was not sent.
    Unreachable(String),
    /// The connection broke, or the answer did not come in time.
    Broken(RedisError),
    /// The server answered with an error.
    Refused(RedisError),
}

impl Failure {
    /// The same for another call that it befell.
    fn again(&self) -> Self {
        match self {
            Self::Unreachable(problem) => Self::Unreachable(problem.clone()),
            Self::Broken(error) => Self::Broken(error.clone()),
            Self::Refused(error) => Self::Refused(error.clone()),
        }
    }
}

/// Whether the server does not know the script.
fn is_forgotten(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

impl From<Failure> for HotStoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable(problem) => HotStoreError::Unavailable(problem),
            Failure::Broken(error) => HotStoreError::Unknown(error.to_string()),
            Failure::Refused(error) => refusal(&error),
        }
    }
}

/// What the server's error says of what was done.
fn refusal(error: &RedisError) -> HotStoreError {
    let text = error.to_string();
    // A script that was refused one of its commands (access rights, a disk that filled up meanwhile) may have run others
    // before that. The server names the script then, whatever the code.
    if text.contains("@user_script") {
        return HotStoreError::Unknown(text);
    }
    match error.code().unwrap_or_default() {
        "OOM" => HotStoreError::Full,
        // Refused before the command was run: loading, another script runs, the disk can't be written, a replica, a
        // cluster that looks for its nodes, access rights.
        "LOADING" | "BUSY" | "MISCONF" | "NOREPLICAS" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "MOVED" | "ASK"
        | "TRYAGAIN" | "CROSSSLOT" | "NOPERM" | "NOAUTH" | "WRONGPASS" | "NOSCRIPT" => HotStoreError::Unavailable(text),
        _ => HotStoreError::Unknown(text),
    }
}
