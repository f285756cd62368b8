//! A write, as it is asked for again and again.

use history::{Action, Condition, Outcome, Part, Stamp};
use ingest_svc::{
    Etag, Token,
    accept::{Change, Require, WriteRequest},
};
use model::{Epoch, Version};

use crate::world::{Record, World, columns, whole};

/// A write that is being attempted.
pub(super) struct Attempted {
    pub(super) at: usize,
    pub(super) action: Action,
    pub(super) request: WriteRequest,
    pub(super) outcome: Option<Outcome>,
    /// By which the client can wait until the database has it.
    pub(super) token: Option<Token>,
    pub(super) attempts: u32,
}

impl Attempted {
    /// A repetition is answered in the epoch in which it is asked, but the write was done in that of its condition.
    pub(super) fn as_first_done(&self, outcome: Outcome) -> Outcome {
        match (outcome, self.condition()) {
            (Outcome::Acked { level, stamp }, Some(Condition::At(wanted)))
                if self.attempts > 1 && wanted.epoch < stamp.epoch =>
            {
                Outcome::Acked { level, stamp: Stamp { epoch: wanted.epoch, ..stamp } }
            }
            _ => outcome,
        }
    }

    pub(super) fn condition(&self) -> Option<Condition> {
        match self.action {
            Action::Put { condition, .. } | Action::Update { condition, .. } | Action::Delete { condition } => {
                Some(condition)
            }
            Action::Create { .. } | Action::Read => None,
        }
    }
}

pub(super) fn change(record: &Record, action: Action) -> Change {
    let key = World::key_row(record);
    let all = |value| key.clone().merged_with(whole(value));
    match action {
        Action::Create { value } => Change::Create { row: all(value) },
        Action::Put { value, condition } => Change::Put { row: all(value), precondition: require(condition) },
        Action::Update { value, part, condition } => {
            let part = match part {
                Part::Left => "left_part",
                Part::Right => "right_part",
            };
            let changes = columns(&[("value", value), (part, value)]);
            Change::Update { key, changes, precondition: require(condition) }
        }
        Action::Delete { condition } => Change::Delete { key, precondition: require(condition) },
        Action::Read => unreachable!("a read is no change"),
    }
}

fn require(condition: Condition) -> Option<Require> {
    match condition {
        Condition::None => None,
        Condition::Exists(exists) => Some(Require::Exists(exists)),
        Condition::At(Stamp { version, epoch }) => {
            let version = Version::new(version)?;
            Some(Require::Etag(Etag { version, epoch: Epoch(epoch) }))
        }
    }
}
