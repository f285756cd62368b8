//! Putting back records of which nothing is there, as in a store that has lost everything: by plain commands in an
//! optimistic transaction, which cost Redis about half of what a script does that gets each record as an argument.
//!
//! `WATCH` makes Redis drop the transaction if the shard's header changes, as it does whenever another opener takes over
//! or the shard is opened. It belongs to a connection, so who does this has one to itself.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use ::redis::{Cmd, ErrorKind, Pipeline, RedisError, Value, aio::MultiplexedConnection, cmd, pipe};
use model::{Epoch, Shard};

use super::{
    keys::{SEPARATOR, ShardKeys},
    restores::{Action, EncodedRestore},
    settings::{fields, text},
    store::RedisStore,
    value::{PAYLOAD_AT, head, request_head},
};
use crate::{HotStoreError, OpeningToken};

/// A version is below 2^53.
const VERSION_DIGITS: usize = 16;
/// Connections kept for the next transaction.
const IDLE_CONNECTIONS: usize = 16;

/// Connections that one caller at a time has to itself.
#[derive(Default)]
pub(super) struct Exclusive(Mutex<Vec<MultiplexedConnection>>);

impl Exclusive {
    fn take(&self) -> Option<MultiplexedConnection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, connection: MultiplexedConnection) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What can be put back at once: records of one table, each of them once, and requests.
struct New<'a> {
    records: Vec<&'a EncodedRestore>,
    requests: Vec<&'a EncodedRestore>,
    /// Of the records.
    namespace: &'a [u8],
}

impl<'a> New<'a> {
    /// `None` where each must be looked at in any case.
    fn of(keys: &ShardKeys, part: &'a [EncodedRestore]) -> Option<Self> {
        let of = |action| part.iter().filter(move |restore| restore.action == action).collect::<Vec<_>>();
        let (records, requests) = (of(Action::Dirty), of(Action::Request));
        let namespace = records.first().map_or(&[][..], |first| namespace_of(first.name(keys)));
        let mut met = HashSet::with_capacity(records.len());
        let fits = records.len() + requests.len() == part.len()
            && records.iter().all(|restore| namespace_of(restore.name(keys)) == namespace && met.insert(&restore.key));
        fits.then_some(Self { records, requests, namespace })
    }

    /// The images first: a mark that is missing is noticed by the next opening, and one without an image would be none.
    /// Of the commands only those for requests have an answer that counts.
    fn transaction(&self, keys: &ShardKeys, epoch: Epoch, request_window: u64) -> Pipeline {
        let mut commands = Pipeline::with_capacity(4 + self.requests.len());
        commands.atomic();
        if !self.records.is_empty() {
            let bytes = self.records.iter().map(|restore| restore.payload.len()).sum::<usize>();
            let names = self.records.iter().map(|restore| restore.key.len()).sum::<usize>();
            let command = |name: &str, bytes| {
                let mut command = Cmd::with_capacity(3 + 2 * self.records.len(), bytes);
                command.arg(name);
                command
            };
            let digits = VERSION_DIGITS * self.records.len();
            let mut images = command("MSET", names + bytes + PAYLOAD_AT * self.records.len());
            let mut marks = command("ZADD", names + digits);
            marks.arg(&keys.dirty);
            let mut behinds = command("ZADD", names + digits);
            behinds.arg(keys.behind(self.namespace)).arg("LT");
            let mut value = Vec::new();
            for restore in &self.records {
                value.clear();
                value.extend_from_slice(head(restore.kind, restore.version, epoch, restore.since).as_bytes());
                value.extend_from_slice(&restore.payload);
                images.arg(&restore.key[..]).arg(&value[..]);
                marks.arg(restore.version.get()).arg(restore.name(keys));
                behinds.arg(restore.behind.get()).arg(restore.name(keys));
            }
            let mut counts = cmd("HINCRBY");
            counts.arg(&keys.counts).arg(self.namespace).arg(bytes);
            for command in [images, marks, behinds, counts] {
                commands.add_command(command).ignore();
            }
        }
        for request in &self.requests {
            let value = [request_head(request.version, epoch).as_bytes(), &request.payload].concat();
            let mut command = cmd("SET");
            command.arg(&request.key[..]).arg(value).arg("PX").arg(request_window).arg("NX");
            commands.add_command(command);
        }
        commands
    }
}

impl RedisStore {
    /// Puts back what is new, and answers the rest: what must be looked at one by one.
    pub(super) async fn restore_new(
        &self,
        shard: Shard,
        token: &OpeningToken,
        part: Vec<EncodedRestore>,
    ) -> Result<Vec<EncodedRestore>, HotStoreError> {
        let keys = self.keys(shard)?;
        let Some(new) = New::of(keys, &part) else { return Ok(part) };
        let mut connection = match self.exclusive().take() {
            Some(connection) => connection,
            None => self.link(shard).exclusive().await?,
        };
        // A connection is given back only behind an answer: who is given up half-way, or fails, takes it along.
        let epoch = match self.look(keys, token, &new, &mut connection).await {
            Ok(Some(epoch)) => epoch,
            Ok(None) => {
                self.exclusive().give_back(connection);
                return Ok(part);
            }
            // Nothing was done. After a restart of the server all that are kept are broken.
            Err(error) => {
                tracing::debug!(%shard, %error, "a connection for an opening failed; going on without it");
                self.exclusive().clear();
                return Ok(part);
            }
        };
        let transaction = new.transaction(keys, epoch, self.request_window());
        let stored: Result<Option<Vec<Option<String>>>, _> = transaction.query_async(&mut connection).await;
        let rest = match stored {
            Ok(None) => part,
            // A request that was not stored is there already, perhaps with a lower version.
            Ok(Some(stored)) => {
                let mut known = stored.iter().map(Option::is_none);
                part.into_iter().filter(|it| it.action == Action::Request && known.next().unwrap_or(true)).collect()
            }
            // What one of the commands was refused for (memory is short, a key is of another kind) the script isn't, or
            // says so. The last kind is that of an error in the place of EXEC's answers.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType
                ) =>
            {
                return Ok(part);
            }
            Err(error) => return Err(HotStoreError::Unknown(error.to_string())),
        };
        self.exclusive().give_back(connection);
        Ok(rest)
    }

    /// The epoch in which the shard is being opened; `None` if this opener does not open it any more, or anything of
    /// what is to be put back, or of what was set aside, is there. From now on the connection watches the header.
    async fn look(
        &self,
        keys: &ShardKeys,
        token: &OpeningToken,
        new: &New<'_>,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<Epoch>, RedisError> {
        let mut look = pipe();
        // Left by a call that ended before its transaction.
        look.cmd("UNWATCH").ignore();
        look.cmd("WATCH").arg(&keys.header).ignore();
        look.cmd("HMGET").arg(&keys.header).arg(&["otok", "oinc", "oepoch"]);
        look.cmd("INFO").arg("server");
        look.cmd("EXISTS").arg(&keys.aside);
        for restore in &new.records {
            look.arg(&restore.key[..]);
        }
        let (opening, info, there): ([Option<String>; 3], Value, u64) = look.query_async(connection).await?;
        let [opener, incarnation, epoch] = opening;
        let live = fields(&text(&info)).remove("run_id");
        let is_its = opener.as_ref() == Some(&token.0) && incarnation.is_some() && incarnation == live;
        Ok(epoch.and_then(|epoch| epoch.parse().ok()).map(Epoch).filter(|_| is_its && there == 0))
    }
}

/// The namespace in a record's name.
fn namespace_of(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == SEPARATOR).next().unwrap_or_default()
}
