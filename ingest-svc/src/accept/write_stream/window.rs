//! What of a stream was read and is not taken back yet: which writes may begin, and which results may go out.
//!
//! Results go out in the order of the stream. A write begins as soon as no earlier one of its record waits or runs, so
//! one that takes long holds up its record, and the room of the window, but no other record. No I/O.

use std::collections::{BTreeSet, VecDeque};

use hot_store::RecordId;
use planted::Bug;
use tokio::time::Instant;

use super::super::{Accepted, WriteError, WriteRequest};

/// How much of a stream is in the server at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Writes.
    pub(super) items: usize,
    /// Their bytes; the last one may go beyond.
    pub(super) bytes: usize,
}

/// What says why a write failed is that much larger than what says that it was accepted, at most.
const REFUSAL_WEIGHT: usize = 20;

/// What a write of a stream came to; `None` for what was none.
pub(super) type Answer = Option<Result<Accepted, WriteError>>;

/// Writes of a stream that begin together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Where they stand in the stream.
    pub(super) places: Vec<u64>,
    pub(super) requests: Vec<WriteRequest>,
    pub(super) bytes: usize,
    /// When the first of them was read.
    pub(super) asked: Instant,
}

#[derive(Debug)]
struct Slot<T> {
    about: T,
    bytes: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Instant, RecordId, WriteRequest),
    Running(RecordId),
    Done(Answer),
}

/// The writes from the first whose result nobody has taken to the last that was read.
#[derive(Debug)]
pub(super) struct Window<T> {
    room: Room,
    slots: VecDeque<Slot<T>>,
    /// The place of the first slot in the stream.
    first: u64,
    bytes: usize,
    /// The places of those that have not begun.
    waiting: VecDeque<u64>,
    /// The records of those that run.
    busy: BTreeSet<RecordId>,
}

impl<T> Window<T> {
    pub(super) fn new(room: Room) -> Self {
        Self { room, slots: VecDeque::new(), first: 0, bytes: 0, waiting: VecDeque::new(), busy: BTreeSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether another write may be read.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.room.items && self.bytes < self.room.bytes
    }

    /// Takes in the next write of the stream, which is about this record.
    pub(super) fn push(&mut self, about: T, bytes: usize, asked: Instant, record: RecordId, request: WriteRequest) {
        self.waiting.push_back(self.first + self.slots.len() as u64);
        self.add(about, bytes, State::Waiting(asked, record, request));
    }

    /// Takes in something whose answer is known already.
    pub(super) fn push_answered(&mut self, about: T, bytes: usize, answer: Answer) {
        self.add(about, bytes, State::Done(answer));
    }

    fn add(&mut self, about: T, bytes: usize, state: State) {
        self.bytes += bytes;
        self.slots.push_back(Slot { about, bytes, state });
    }

    /// The writes that may begin now, so many at most, in the order of the stream; `None` if there is none.
    pub(super) fn next_batch(&mut self, max_items: usize) -> Option<Batch> {
        let mut batch = Batch { places: Vec::new(), requests: Vec::new(), bytes: 0, asked: Instant::now() };
        let mut begun = Vec::new();
        // Records of which an earlier write goes on waiting.
        let mut passed = BTreeSet::new();
        let Self { waiting, slots, busy, first, .. } = self;
        waiting.retain(|&place| {
            let slot = &mut slots[(place - *first) as usize];
            let State::Waiting(_, record, _) = &slot.state else { return false };
            if batch.places.len() >= max_items {
                return true;
            }
            let waits = busy.contains(record) || passed.contains(record);
            if waits && !planted::is(Bug::StreamOvertakes) {
                passed.insert(record.clone());
                return true;
            }
            let record = record.clone();
            if let State::Waiting(asked, _, request) =
                std::mem::replace(&mut slot.state, State::Running(record.clone()))
            {
                batch.places.push(place);
                batch.requests.push(request);
                batch.bytes += slot.bytes;
                batch.asked = batch.asked.min(asked);
                begun.push(record);
            }
            false
        });
        // Only now: those of one record may go together, in their order.
        self.busy.extend(begun);
        (!batch.places.is_empty()).then_some(batch)
    }

    /// A batch has come to its end.
    pub(super) fn finish(&mut self, places: Vec<u64>, results: Vec<Result<Accepted, WriteError>>) {
        for (place, result) in places.into_iter().zip(results) {
            let slot = &mut self.slots[(place - self.first) as usize];
            if let State::Running(record) = std::mem::replace(&mut slot.state, State::Done(Some(result))) {
                self.busy.remove(&record);
            }
        }
    }

    /// Answers all that has not begun with this; it won't begin any more.
    pub(super) fn refuse_waiting(&mut self, error: &WriteError) {
        for place in std::mem::take(&mut self.waiting) {
            self.slots[(place - self.first) as usize].state = State::Done(Some(Err(error.clone())));
        }
    }

    /// Whether a result may go out.
    pub(super) fn has_results(&self) -> bool {
        self.slots.front().is_some_and(|slot| matches!(slot.state, State::Done(_)))
    }

    /// The next results in the order of the stream, until they weigh so much; their room is free again.
    pub(super) fn take_results(&mut self, max_weight: usize) -> Vec<(T, Answer)> {
        let (mut taken, mut weight) = (Vec::new(), 0);
        while weight < max_weight && self.has_results() {
            let Some(Slot { about, bytes, state: State::Done(answer) }) = self.slots.pop_front() else { break };
            self.first += 1;
            self.bytes -= bytes;
            weight += if matches!(answer, Some(Ok(_))) { 1 } else { REFUSAL_WEIGHT };
            taken.push((about, answer));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::accept::Change;
    use model::{DatabaseName, KeyBytes, Namespace, Row, TableName, TableRef};
    use proptest::prelude::*;

    fn record(key: u8) -> RecordId {
        RecordId { namespace: Namespace::new("n").unwrap(), key: KeyBytes::from_stored(vec![key].into()) }
    }

    fn request() -> WriteRequest {
        let table = TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("t").unwrap() };
        WriteRequest { table, change: Change::Delete { key: Row::default(), precondition: None }, request_id: None }
    }

    fn window(items: usize, bytes: usize) -> Window<u64> {
        Window::new(Room { items, bytes })
    }

    fn done(batch: &Batch) -> Vec<Result<Accepted, WriteError>> {
        batch.places.iter().map(|_| Err(WriteError::LogDown)).collect()
    }

    #[test]
    fn a_write_waits_for_earlier_ones_of_its_record_and_for_no_other() {
        let mut window = window(10, 1000);
        for (about, key) in [1, 2, 1, 3].into_iter().enumerate() {
            window.push(about as u64, 1, Instant::now(), record(key), request());
        }
        let first = window.next_batch(2).unwrap();
        assert_eq!(first.places, [0, 1]);
        let second = window.next_batch(2).unwrap();
        assert_eq!(second.places, [3], "the third is of a record that is written");
        assert!(window.next_batch(2).is_none());
        window.finish(second.places.clone(), done(&second));
        assert!(!window.has_results(), "the first ones come first");
        window.finish(first.places.clone(), done(&first));
        assert_eq!(window.take_results(999).len(), 2);
        assert_eq!(window.next_batch(9).unwrap().places, [2]);
    }

    #[test]
    fn those_of_one_record_may_go_together_and_none_past_another() {
        let mut window = window(10, 1000);
        for about in 0..3 {
            window.push(about, 1, Instant::now(), record(1), request());
        }
        let first = window.next_batch(2).unwrap();
        assert_eq!(first.places, [0, 1]);
        assert!(window.next_batch(2).is_none());
        window.push(3, 1, Instant::now(), record(2), request());
        assert_eq!(window.next_batch(2).unwrap().places, [3]);
    }

    #[test]
    fn room_is_free_again_when_results_are_taken_not_when_they_are_known() {
        let mut window = window(2, 100);
        window.push(0, 1, Instant::now(), record(1), request());
        window.push_answered(1, 1, None);
        assert!(!window.has_room() && !window.has_results());
        let batch = window.next_batch(9).unwrap();
        window.finish(batch.places.clone(), done(&batch));
        assert!(!window.has_room());
        let taken = window.take_results(1);
        assert_eq!((taken.len(), taken[0].0, window.has_room()), (1, 0, true));
        window.push_answered(2, 100, None);
        assert!(!window.has_room(), "the bytes are at their bound");
        assert!(window.take_results(999).iter().map(|(about, _)| *about).eq([1, 2]) && window.is_empty());
        assert!(window.has_room());
    }

    #[test]
    fn what_has_not_begun_is_refused_and_what_has_is_waited_for() {
        let mut window = window(9, 100);
        for about in 0..3 {
            window.push(about, 1, Instant::now(), record(about as u8 % 2), request());
        }
        let batch = window.next_batch(2).unwrap();
        window.refuse_waiting(&WriteError::LogQueueFull);
        assert!(window.next_batch(9).is_none() && !window.has_results());
        window.finish(batch.places.clone(), done(&batch));
        let answers: Vec<_> = window.take_results(999).into_iter().map(|(_, answer)| answer.unwrap()).collect();
        assert_eq!(answers, [Err(WriteError::LogDown), Err(WriteError::LogDown), Err(WriteError::LogQueueFull)]);
    }

    proptest! {
        #[test]
        fn every_write_begins_behind_those_of_its_record_and_is_answered_in_its_turn(
            keys in prop::collection::vec(0_u8..4, 1..60),
            steps in prop::collection::vec((0_u8..4, 1_usize..5), 0..200),
        ) {
            let mut window = window(7, 1000);
            let (mut pushed, mut running, mut begun, mut answered) = (0, Vec::new(), Vec::new(), Vec::new());
            let mut step = |window: &mut Window<u64>, what: u8, n: usize| {
                match what {
                    0 if window.has_room() && pushed < keys.len() => {
                        window.push(pushed as u64, 1, Instant::now(), record(keys[pushed]), request());
                        pushed += 1;
                    }
                    1 => if let Some(batch) = window.next_batch(n) {
                        // Nothing of its records runs, and nothing earlier of them waits.
                        for &place in &batch.places {
                            let key = keys[place as usize];
                            let of_key = |p: &u64| keys[*p as usize] == key;
                            assert!(!running.iter().any(|b: &Batch| b.places.iter().any(of_key)));
                            let earlier = (0..place).filter(of_key).count();
                            let before = begun.iter().chain(batch.places.iter().take_while(|p| **p != place));
                            assert_eq!(before.filter(|p| of_key(p)).count(), earlier);
                        }
                        begun.extend(batch.places.clone());
                        running.push(batch);
                    },
                    2 if !running.is_empty() => {
                        let batch = running.swap_remove(n % running.len());
                        window.finish(batch.places.clone(), done(&batch));
                    }
                    _ => answered.extend(window.take_results(n * REFUSAL_WEIGHT).into_iter().map(|(about, _)| about)),
                }
                answered.len()
            };
            for (what, n) in steps {
                step(&mut window, what, n);
            }
            let mut rounds = 0;
            while step(&mut window, 3, 9) < keys.len() {
                for what in [0, 1, 2] {
                    step(&mut window, what, 4);
                }
                rounds += 1;
                assert!(rounds < 1000, "it stands still");
            }
            prop_assert!(answered.iter().copied().eq(0..keys.len() as u64));
            prop_assert!(window.is_empty());
        }
    }
}
