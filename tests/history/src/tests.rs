#![allow(clippy::unwrap_used)]

mod cases;
mod register;

use super::*;

/// The history of the one key `k`.
#[derive(Default)]
struct Story {
    history: History,
}

impl Story {
    fn op(&mut self, from: u64, to: u64, action: Action, outcome: Outcome) -> &mut Self {
        let span = Span::new(from, to);
        let client = self.history.operations.len() as u32;
        self.history.operations.push(Operation { client, key: "k".into(), action, span, batch: None, outcome });
        self
    }

    fn batch(&mut self, batch: u64, index: u32) -> &mut Self {
        self.history.operations.last_mut().unwrap().batch = Some(BatchPlace { batch, index });
        self
    }

    fn sample(&mut self, from: u64, drained: bool, row: Option<Seen>) -> &mut Self {
        let span = Span::new(from, from);
        self.history.samples.push(Sample { key: "k".into(), span, drained, horizon: 0, row });
        self
    }

    fn told(&mut self, at: u64, version: u64, row: Option<Image>) -> &mut Self {
        self.history.told.push(Told { key: "k".into(), at, version, epoch: 1, row });
        self
    }

    fn horizon(&mut self, horizon: u64) -> &mut Self {
        self.history.samples.last_mut().unwrap().horizon = horizon;
        self
    }

    fn loss(&mut self, from: u64, to: u64) -> &mut Self {
        self.history.losses.push(Loss { span: Span::new(from, to) });
        self
    }

    fn base(&mut self, version: u64, image: Option<Image>) -> &mut Self {
        self.history.initial.insert("k".into(), Base { version, image });
        self
    }

    /// Numbers of lost, stale, resurrected, phantom, out of order.
    fn counts(&self) -> [usize; 5] {
        let Findings { lost, stale, resurrected, phantom, out_of_order } = self.history.check();
        [lost.len(), stale.len(), resurrected.len(), phantom.len(), out_of_order.len()]
    }

    fn is_fine(&self) {
        let findings = self.history.check();
        assert!(findings.is_empty(), "{findings}{}", self.history.of_key("k"));
    }
}

fn story() -> Story {
    Story::default()
}

const CLEAN: [usize; 5] = [0; 5];
const LOST: [usize; 5] = [1, 0, 0, 0, 0];
const STALE: [usize; 5] = [0, 1, 0, 0, 0];
const RESURRECTED: [usize; 5] = [0, 0, 1, 0, 0];
const PHANTOM: [usize; 5] = [0, 0, 0, 1, 0];
const OUT_OF_ORDER: [usize; 5] = [0, 0, 0, 0, 1];

fn at(version: u64, epoch: u32) -> Stamp {
    Stamp { version, epoch }
}

fn put(value: u64) -> Action {
    Action::Put { value, condition: Condition::None }
}

fn create(value: u64) -> Action {
    Action::Create { value }
}

fn update(value: u64, part: Part) -> Action {
    Action::Update { value, part, condition: Condition::None }
}

fn delete() -> Action {
    Action::Delete { condition: Condition::None }
}

fn acked(level: Level, version: u64, epoch: u32) -> Outcome {
    Outcome::Acked { level, stamp: at(version, epoch) }
}

fn queued(version: u64) -> Outcome {
    acked(Level::Queued, version, 1)
}

fn logged(version: u64) -> Outcome {
    acked(Level::Logged, version, 1)
}

fn seen(image: Image, version: u64) -> Seen {
    Seen { version, epoch: None, image }
}

fn whole(value: u64, version: u64) -> Option<Seen> {
    Some(seen(Image::whole(value), version))
}

fn read(value: u64, version: u64) -> Outcome {
    Outcome::Read(whole(value, version))
}

const NOT_FOUND: Outcome = Outcome::Read(None);
