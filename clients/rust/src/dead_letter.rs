//! Dead letters: records that the database refused for good, for operators.

use jiff::Timestamp;
use proto::v1::{self, dead_letter_result};
use tonic::Streaming;

use crate::{Client, ClientError, Row, TableRef, retry::Repeat};

/// Why a record was given up; as in the API.
pub type DeadLetterCause = v1::DeadLetterCause;
/// What became of a dead letter's record; as in the API.
pub type DeadLetterState = v1::DeadLetterState;
/// What was to be done; as in the API.
pub type DeadLetterOperation = v1::DeadLetterOperation;

/// Which dead letters are listed: those about which somebody has to do something, unless [`Self::all_states`] is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetterFilter {
    /// Those of one table; `None`: of every table.
    pub table: Option<TableRef>,
    /// Those with one of these causes; empty: with any.
    pub causes: Vec<DeadLetterCause>,
    /// Those that were given up at this time or later.
    pub since: Option<Timestamp>,
    /// Those that were given up before this time.
    pub until: Option<Timestamp>,
    /// Also those that are settled.
    pub all_states: bool,
}

/// Names a dead letter, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeadLetterName {
    /// The table.
    pub table: TableRef,
    /// Its id among those of the table.
    pub id: String,
}

/// A dead letter, without anything of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its name.
    pub name: DeadLetterName,
    /// The topic in which the event lay.
    pub topic: String,
    /// The partition, which is the shard.
    pub partition: u32,
    /// The event's offset there.
    pub offset: i64,
    /// The version of the write; `None` if the event's bytes don't tell.
    pub version: Option<u64>,
    /// Why it was given up.
    pub cause: DeadLetterCause,
    /// The database's own code; empty if no database refused it.
    pub code: String,
    /// What is wrong, in words.
    pub message: String,
    /// How many transactions with it failed.
    pub attempts: u32,
    /// When it was refused first.
    pub first_refused_at: Timestamp,
    /// When it was given up.
    pub dead_lettered_at: Timestamp,
    /// The drain replica that gave it up.
    pub replica: String,
    /// What became of the record.
    pub state: DeadLetterState,
}

/// A dead letter with all that it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct ShownDeadLetter {
    /// What a list says of it.
    pub letter: DeadLetter,
    /// The write; `None` if the event's bytes can't be read.
    pub record: Option<DeadLetterRecord>,
    /// The key of the event in the log, byte for byte.
    pub event_key: Vec<u8>,
    /// The event, byte for byte.
    pub event_payload: Vec<u8>,
}

/// The write that a dead letter is about.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterRecord {
    /// What was to be done.
    pub operation: DeadLetterOperation,
    /// The columns of its primary key.
    pub key: Row,
    /// The whole row; `None` for a delete.
    pub row: Option<Row>,
}

/// What became of the wish to replay or purge a dead letter.
#[derive(Debug, Clone)]
pub enum DeadLetterOutcome {
    /// The record was written again and is QUEUED: the version that it has now.
    Replayed(u64),
    /// The record was given up.
    Purged,
    /// Nothing was done, since the letter needs nothing: its state.
    Settled(DeadLetterState),
    /// It was not done.
    Failed(ClientError),
}

/// A list of dead letters, page by page.
#[derive(Debug)]
pub struct DeadLetterPages(Streaming<v1::ListDeadLettersResponse>);

impl DeadLetterPages {
    /// The next letters, `None` behind the last ones.
    ///
    /// # Errors
    /// [`ClientError`]: the list ends here, and is not whole.
    pub async fn next(&mut self) -> Result<Option<Vec<DeadLetter>>, ClientError> {
        let page = self.0.message().await.map_err(ClientError::from)?;
        page.map(|page| page.letters.into_iter().map(DeadLetter::from_proto).collect()).transpose()
    }
}

impl Client {
    /// The dead letters there are now, by table and shard, oldest first. Nothing is tried again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_dead_letters(&self, filter: &DeadLetterFilter) -> Result<DeadLetterPages, ClientError> {
        let selection =
            if filter.all_states { v1::DeadLetterSelection::All } else { v1::DeadLetterSelection::Unspecified };
        let request = v1::ListDeadLettersRequest {
            table: filter.table.as_ref().map(TableRef::to_proto),
            causes: filter.causes.iter().map(|cause| (*cause).into()).collect(),
            since: filter.since.map(to_proto),
            until: filter.until.map(to_proto),
            selection: selection.into(),
        };
        let answer = self.connection().operators.list_dead_letters(request).await;
        Ok(DeadLetterPages(answer.map_err(ClientError::from)?.into_inner()))
    }

    /// One dead letter with the row that it holds.
    ///
    /// # Errors
    /// [`ClientError`]; `UNKNOWN_DEAD_LETTER` if there is none of that name.
    pub async fn get_dead_letter(&self, name: &DeadLetterName) -> Result<ShownDeadLetter, ClientError> {
        let build = || v1::GetDeadLetterRequest { name: Some(name.to_proto()) };
        let answer = self
            .call(Repeat::Harmless, PATIENCE, build, |mut connection, request| async move {
                connection.operators.get_dead_letter(request).await
            })
            .await?;
        let letter = answer.letter.ok_or_else(|| ClientError::BadAnswer("there is no letter in it".into()))?;
        let record = answer.record.map(|record| {
            Ok::<_, ClientError>(DeadLetterRecord {
                operation: record.operation(),
                key: Row::from_proto(record.key.unwrap_or_default())?,
                row: record.row.map(Row::from_proto).transpose()?,
            })
        });
        Ok(ShownDeadLetter {
            letter: DeadLetter::from_proto(letter)?,
            record: record.transpose()?,
            event_key: answer.event_key,
            event_payload: answer.event_payload,
        })
    }

    /// Writes the records of dead letters again, each if it is still the newest of its key; one outcome per name. The
    /// server takes as many as items of a batch. Sent again only if nothing was done.
    ///
    /// # Errors
    /// [`ClientError`]: what became of them is not known. To replay them again does no harm.
    pub async fn replay_dead_letters(&self, names: &[DeadLetterName]) -> Result<Vec<DeadLetterOutcome>, ClientError> {
        let build = || v1::ReplayDeadLettersRequest { names: names.iter().map(DeadLetterName::to_proto).collect() };
        let answer = self
            .call(Repeat::Write, PATIENCE, build, |mut connection, request| async move {
                connection.operators.replay_dead_letters(request).await
            })
            .await?;
        outcomes(answer.results, names.len())
    }

    /// Gives dead letters up: what is purged is read from the database again. One outcome per name. The server takes as many
    /// as items of a batch. Sent again only if nothing was done.
    ///
    /// # Errors
    /// [`ClientError`]: what became of them is not known. To purge them again does no harm.
    pub async fn purge_dead_letters(&self, names: &[DeadLetterName]) -> Result<Vec<DeadLetterOutcome>, ClientError> {
        let build = || v1::PurgeDeadLettersRequest { names: names.iter().map(DeadLetterName::to_proto).collect() };
        let answer = self
            .call(Repeat::Write, PATIENCE, build, |mut connection, request| async move {
                connection.operators.purge_dead_letters(request).await
            })
            .await?;
        outcomes(answer.results, names.len())
    }
}

/// How much longer than other calls an attempt may take: the server reads the dead letters from the event log.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(25);

fn outcomes(results: Vec<v1::DeadLetterResult>, asked: usize) -> Result<Vec<DeadLetterOutcome>, ClientError> {
    if results.len() != asked {
        return Err(ClientError::BadAnswer(format!("it has {} results for {asked} letters", results.len())));
    }
    let outcome = |result: v1::DeadLetterResult| match result.outcome {
        Some(dead_letter_result::Outcome::ReplayedAs(version)) => Ok(DeadLetterOutcome::Replayed(version)),
        Some(dead_letter_result::Outcome::Purged(_)) => Ok(DeadLetterOutcome::Purged),
        Some(dead_letter_result::Outcome::Settled(state)) => {
            Ok(DeadLetterOutcome::Settled(DeadLetterState::try_from(state).unwrap_or_default()))
        }
        Some(dead_letter_result::Outcome::Status(status)) => {
            Ok(DeadLetterOutcome::Failed(ClientError::from_item(&status)))
        }
        None => Err(ClientError::BadAnswer("a result says nothing".into())),
    };
    results.into_iter().map(outcome).collect()
}

impl DeadLetterName {
    fn to_proto(&self) -> v1::DeadLetterName {
        v1::DeadLetterName { table: Some(self.table.to_proto()), id: self.id.clone() }
    }
}

impl DeadLetter {
    fn from_proto(letter: v1::DeadLetter) -> Result<Self, ClientError> {
        let (cause, state) = (letter.cause(), letter.state());
        let name = letter.name.unwrap_or_default();
        let table = name.table.unwrap_or_default();
        Ok(Self {
            name: DeadLetterName { table: TableRef::new(table.database, table.table), id: name.id },
            topic: letter.topic,
            partition: letter.partition,
            offset: letter.offset,
            version: (letter.version != 0).then_some(letter.version),
            cause,
            code: letter.code,
            message: letter.message,
            attempts: letter.attempts,
            first_refused_at: from_proto(letter.first_refused_at)?,
            dead_lettered_at: from_proto(letter.dead_lettered_at)?,
            replica: letter.replica,
            state,
        })
    }
}

pub(crate) fn from_proto(at: Option<prost_types::Timestamp>) -> Result<Timestamp, ClientError> {
    let at = at.unwrap_or_default();
    Timestamp::new(at.seconds, at.nanos).map_err(|_| ClientError::BadAnswer("a time is out of range".into()))
}

/// The API counts nanoseconds forward from the second, in whole microseconds.
pub(crate) fn to_proto(at: Timestamp) -> prost_types::Timestamp {
    let micros = at.as_microsecond();
    prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0),
    }
}
