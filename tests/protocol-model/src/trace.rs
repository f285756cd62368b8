//! Traces in words.

use std::fmt;

use stateright::Model as _;

use crate::{
    drain::Step,
    log::Event,
    protocol::{Action, Protocol},
    scenarios::Operation,
    state::State,
    store::{Slot, Stage},
    write::{Kind, Progress},
};

/// A step, and what it led to.
pub(crate) struct Told<'a> {
    protocol: &'a Protocol,
    before: State,
    action: Action,
    after: State,
}

/// Goes through a trace again and tells each step.
pub(crate) fn tell<'a>(protocol: &'a Protocol, actions: &[Action]) -> Vec<Told<'a>> {
    let mut told = Vec::new();
    let mut before = State::new(&protocol.scenario);
    for &action in actions {
        let Some(after) = protocol.next_state(&before, action) else { break };
        told.push(Told { protocol, before: std::mem::replace(&mut before, after.clone()), action, after });
    }
    told
}

fn event(event: &Event) -> String {
    let request =
        event.request.map_or(String::new(), |request| format!(", request {} is v{}", request.id, request.version));
    match event.mutation {
        None if event.request.is_none() => format!("the fence of epoch {}", event.epoch),
        None => format!("a note, epoch {}{request}", event.epoch),
        Some(is) => format!("{is}, epoch {}{request}", event.epoch),
    }
}

fn operation(operation: &Operation) -> String {
    let kind = match operation.kind {
        Kind::Put => "put",
        Kind::Delete => "delete",
        Kind::Update => "update",
        Kind::CreateUnseen => "create",
    };
    let request = operation.request.map_or(String::new(), |id| format!(", request {id}"));
    format!("{kind} of value {} into key {}{request}", operation.value, operation.key)
}

fn progress(progress: Progress) -> String {
    match progress {
        Progress::Waiting => "waits".to_owned(),
        Progress::Read { seen, .. } => format!("has read v{}", seen.version),
        Progress::Producing { version, epoch, .. } => format!("v{version} in epoch {epoch}, produces it"),
        Progress::Landed { .. } => "the log has it".to_owned(),
        Progress::Repeated { version, .. } => format!("is known as v{version}"),
        Progress::Acked { version } => format!("acked, v{version} or newer is QUEUED"),
        Progress::Over => "refused, or of unknown outcome".to_owned(),
    }
}

fn slot(slot: Slot) -> String {
    match slot {
        Slot::Empty => "nothing".to_owned(),
        Slot::Absent(_) => "\"absent\"".to_owned(),
        Slot::Leased(token) => format!("lease {token}"),
        Slot::Image(image) => {
            let stage = match image.stage {
                Stage::Unqueued => "unqueued",
                Stage::Queued => "queued",
                Stage::Parked => "parked",
                Stage::Clean => "clean",
            };
            format!("v{} {stage}", image.is.version)
        }
    }
}

impl Told<'_> {
    fn slots(&self) -> String {
        let keys = 0..self.protocol.scenario.keys;
        keys.map(|key| format!("key {key}: {}", slot(self.after.store.slots[key]))).collect::<Vec<_>>().join(", ")
    }

    fn rows(&self) -> String {
        let keys = 0..self.protocol.scenario.keys;
        let row = |key: usize| match (self.after.database.keys[key].row, self.after.database.keys[key].tombstone) {
            (Some((version, _)), None) => format!("key {key}: row v{version}"),
            (None, Some(version)) => format!("key {key}: tombstone v{version}"),
            (None, None) => format!("key {key}: nothing"),
            (Some((row, _)), Some(tombstone)) => format!("key {key}: row v{row} and tombstone v{tombstone}"),
        };
        keys.map(row).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (&self.before, &self.after);
        let operations = &self.protocol.scenario.operations;
        match self.action {
            Action::ReadForUpdate(op) | Action::Write(op) | Action::Look(op) | Action::Mark(op) => {
                let step = match self.action {
                    Action::ReadForUpdate(_) => "reads",
                    Action::Write(_) => "writes",
                    Action::Look(_) => "looks what became of it",
                    _ => "marks queued",
                };
                write!(f, "client {op} ({}) {step}: {}", operation(&operations[op]), progress(after.clients[op]))
            }
            Action::Land(which) => {
                let produce = &before.under_way[which];
                let at = before.end(produce.table);
                write!(f, "the log takes {} at {}/{at}", event(&produce.event), produce.table)
            }
            Action::Relay(key) => write!(f, "the relay produces {} of key {key} again", slot(before.store.slots[key])),
            Action::RelayMark(_) => write!(f, "the relay marks queued: {}", self.slots()),
            Action::ReadCheckpoint => write!(f, "a checkpoint begins"),
            Action::WriteCheckpoint => write!(f, "the checkpoint is written: {:?}", after.store.checkpoint),
            Action::Claim(seat) => write!(f, "opener {seat} claims the shard"),
            Action::Choose(seat) => match &after.openers[seat] {
                Some(opener) => {
                    let kept = if opener.start.discard { "nothing is kept" } else { "the store is kept" };
                    write!(
                        f,
                        "opener {seat} draws epoch {}, starts at {:?}, {kept}",
                        opener.epoch, opener.start.records
                    )
                }
                None => write!(f, "opener {seat} gives up"),
            },
            Action::Begin(seat) if after.openers[seat].is_some() => {
                write!(f, "opener {seat} stores start and epoch: {}", self.slots())
            }
            Action::SendFences(seat) => write!(f, "opener {seat} sends its fences"),
            Action::ReadShardRows(seat) => write!(f, "opener {seat} reads the shard rows"),
            Action::ReadRecord(seat) => write!(f, "opener {seat} reads a record"),
            Action::PutBack(seat) if after.openers[seat].is_some() => {
                write!(f, "opener {seat} puts it back: {}", self.slots())
            }
            Action::Begin(seat) | Action::PutBack(seat) => write!(f, "opener {seat} has lost the shard"),
            Action::Finish(seat) if after.is_open() => {
                write!(f, "opener {seat} opens the shard in epoch {}, clock {}", after.store.epoch, after.store.clock)
            }
            Action::Finish(seat) => write!(f, "opener {seat} has lost the shard"),
            Action::Assign(table, seat) => write!(f, "partition {table} passes to drain {seat}"),
            Action::Own(table, seat) => write!(f, "drain {seat} writes its name into the shard row of {table}"),
            Action::Gather(table, seat, records) => write!(f, "drain {seat} takes {records} of partition {table}"),
            Action::BeginTransaction(table, seat) => match &after.drains[table][seat] {
                Some(consumer) => {
                    let verdicts = consumer.batch.as_ref().map(|batch| match &batch.step {
                        Step::Begun(verdicts) => format!("{verdicts:?}"),
                        _ => String::new(),
                    });
                    write!(f, "drain {seat} begins a transaction: {}", verdicts.unwrap_or_default())
                }
                None => write!(f, "drain {seat} is not the owner"),
            },
            Action::CommitTransaction(_, seat) => write!(f, "drain {seat}'s transaction commits: {}", self.rows()),
            Action::MarkClean(_, seat) => write!(f, "drain {seat} marks clean: {}", self.slots()),
            Action::CommitOffset(table, seat) => {
                write!(f, "drain {seat} is done, {} is committed of partition {table}", after.log[table].committed)
            }
            Action::RetryAside(_, seat) => write!(f, "drain {seat} tries the refused record again"),
            Action::DeadLetter(_, seat) => write!(f, "drain {seat} puts the refused record to the dead letters"),
            Action::Park(_, seat) => write!(f, "drain {seat} parks it: {}", self.slots()),
            Action::Expire(key) => write!(f, "key {key} expires ({})", slot(before.store.slots[key])),
            Action::AskPurge(_, seat) => {
                let up_to = after.purge.map_or(0, |purge| purge.up_to);
                write!(f, "drain {seat} may purge up to v{up_to}")
            }
            Action::BeginPurge => write!(f, "the purge finds {:?}", after.purge.and_then(|purge| purge.found)),
            Action::CommitPurge => write!(f, "the purge commits: {}", self.rows()),
            Action::AskHorizon(_, seat) => {
                let horizon = after.note.map_or(0, |note| note.horizon);
                write!(f, "drain {seat} is told the horizon v{horizon}")
            }
            Action::NoteHorizon => {
                write!(f, "the horizon is noted, or not: {:?}", after.database.shard.map(|row| row.horizon))
            }
            Action::Ask(seat, key) => write!(f, "reader {seat} asks for key {key}: {}", slot(after.store.slots[key])),
            Action::Load(seat) => write!(f, "reader {seat} reads the row"),
            Action::Fill(seat) => write!(f, "reader {seat} fills: {}", self.slots()),
            Action::ReachDisk => write!(f, "all that the store holds reaches the disk"),
            Action::LoseAll => write!(f, "THE STORE IS LOST"),
            Action::LoseTail => write!(f, "THE STORE LOSES WHAT HAD NOT REACHED THE DISK: {}", self.slots()),
            Action::SetClockBack => write!(f, "the wall clock steps back"),
        }
    }
}
