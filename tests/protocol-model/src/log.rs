//! The event log: the shard's partitions, what is on its way into them, and what is void there.

use crate::{
    protocol::Protocol,
    rules::Rule,
    state::State,
    words::{Epoch, Key, Mutation, Offset, Op, Request, Seat, Table, Version},
};

/// A record of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Event {
    /// The epoch in which it was produced.
    pub(crate) epoch: Epoch,
    pub(crate) mutation: Option<Mutation>,
    /// A request that the event names besides that of its mutation: a note.
    pub(crate) request: Option<Request>,
    /// The record that the note is about.
    pub(crate) noted: Option<Key>,
}

impl Event {
    /// A record's after-image.
    pub(crate) fn of(epoch: Epoch, is: Mutation) -> Self {
        Self { epoch, mutation: Some(is), request: None, noted: None }
    }

    pub(crate) fn fence(epoch: Epoch) -> Self {
        Self { epoch, mutation: None, request: None, noted: None }
    }

    fn is_fence(&self) -> bool {
        self.mutation.is_none() && self.request.is_none()
    }

    /// Which version of which record a note is about.
    pub(crate) fn note(&self) -> Option<(Key, Version)> {
        Some((self.noted?, self.request?.version))
    }

    /// The requests that it names.
    pub(crate) fn requests(&self) -> impl Iterator<Item = Request> {
        self.mutation.and_then(|is| is.request).into_iter().chain(self.request)
    }
}

/// Who waits for a produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Producer {
    Client(Op),
    Relay,
    Opener(Seat),
}

/// A produce under way: it may take effect at any later time, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Produce {
    pub(crate) table: Table,
    pub(crate) event: Event,
    pub(crate) by: Producer,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Partition {
    pub(crate) events: Vec<Event>,
    /// What the drain group has committed.
    pub(crate) committed: Offset,
}

impl Partition {
    pub(crate) fn end(&self) -> Offset {
        self.events.len() as Offset
    }

    /// The epoch in force before `at`: that of the highest fence there. Shards begin in epoch 1.
    pub(crate) fn in_force(&self, at: Offset) -> Epoch {
        self.fences(0, at).max(1)
    }

    fn fences(&self, from: Offset, to: Offset) -> Epoch {
        let part = &self.events[from as usize..to as usize];
        part.iter().filter(|event| event.is_fence()).map(|event| event.epoch).max().unwrap_or(0)
    }
}

impl Protocol {
    /// The epoch in force at `at` for somebody who began to read at `start`; 0 if that is not known.
    ///
    /// With `start` the epoch in force there is kept; so what is before it counts without being read.
    pub(crate) fn in_force(&self, partition: &Partition, start: Offset, at: Offset) -> Epoch {
        let from = if self.on(Rule::EpochKeptWithOffset) { 0 } else { start };
        let first = if from == 0 { 1 } else { 0 };
        if self.on(Rule::LowerFenceIgnored) {
            return partition.fences(from, at).max(first);
        }
        let read = &partition.events[from as usize..at as usize];
        read.iter().rev().find(|event| event.is_fence()).map_or(first, |fence| fence.epoch)
    }

    /// Sends an event on its way to a partition.
    pub(crate) fn produce(&self, s: &mut State, by: Producer, table: Table, event: Event) {
        s.under_way.push(Produce { table, event, by });
        // What is under way has no order.
        s.under_way.sort_unstable();
    }

    /// A produce takes effect, and its producer is told so.
    pub(crate) fn land(&self, s: &mut State, which: usize) {
        let Produce { table, event, by } = s.under_way.remove(which);
        let offset = s.log[table].end();
        s.log[table].events.push(event);
        match by {
            Producer::Client(op) => self.client_landed(s, op, event),
            Producer::Relay => self.relay_landed(s, event),
            Producer::Opener(seat) => self.fence_landed(s, seat, table, event.epoch, offset),
        }
    }
}

/// The highest version that a stretch of a partition names, void or not.
pub(crate) fn highest_version(events: &[Event]) -> Version {
    events.iter().filter_map(|event| event.mutation).map(|mutation| mutation.version).max().unwrap_or(0)
}
