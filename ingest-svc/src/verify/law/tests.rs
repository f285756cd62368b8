#![allow(clippy::unwrap_used)]

mod system;

use model::{Image, Row};
use proptest::prelude::*;

use super::*;
use system::{Action, Observed, System, image, schema};

const CLOCK: u64 = 100;

fn v(n: u64) -> Version {
    Version::new(n).unwrap()
}

fn hot(slot: Slot) -> Hot {
    Hot { epoch: Epoch(1), slot: HotSlot::Slot(slot) }
}

fn slot(version: u64, stage: Stage) -> Slot {
    Slot::Image { version: v(version), image: image(version), stage }
}

fn row(version: u64) -> Held {
    Held::Row(system::row_of(v(version)))
}

fn bare_row(of: u64) -> Held {
    let DatabaseRow::Present { row, .. } = system::row_of(v(of)) else { panic!("{of} is a delete") };
    Held::Row(DatabaseRow::Present { version: Version::ZERO, row })
}

/// What is written at this version; a delete if it can be divided by ten.
fn logged(version: u64) -> Logged {
    Logged { version: v(version), image: image(version), epoch: Epoch(1), is_in_force: true }
}

/// Drained, and let go by the hot store.
fn settled(version: u64) -> Look {
    Look {
        before: hot(Slot::Empty),
        row: row(version),
        horizon: Version::ZERO,
        clock: v(CLOCK),
        is_committed: true,
        letter: Letter::None,
        after: hot(Slot::Empty),
        is_newest: false,
    }
}

fn held(look: Look, slot: Slot) -> Look {
    Look { before: hot(slot.clone()), after: hot(slot), ..look }
}

fn says(logged: &Logged, look: &Look) -> Verdict {
    judge(&Schema(&schema()), logged, look)
}

#[test]
fn what_is_right_is_told_by_where_it_is() {
    let (write, delete) = (logged(7), logged(10));
    let absent = || Held::Row(DatabaseRow::Absent);
    let older = || Look { row: row(5), ..settled(7) };
    assert_eq!(says(&write, &settled(7)), Verdict::Agrees);
    assert_eq!(says(&write, &held(settled(7), slot(7, Stage::Clean))), Verdict::Agrees);
    assert_eq!(says(&write, &held(settled(7), slot(7, Stage::Dirty))), Verdict::Agrees, "not marked yet");
    assert_eq!(says(&write, &held(older(), slot(7, Stage::Dirty))), Verdict::Pending);
    assert_eq!(says(&write, &held(older(), slot(9, Stage::Dirty))), Verdict::Pending);
    assert_eq!(says(&write, &held(older(), slot(7, Stage::Parked))), Verdict::Parked);
    assert_eq!(says(&write, &Look { letter: Letter::Purged, ..older() }), Verdict::GivenUp);
    assert_eq!(says(&write, &Look { letter: Letter::Cut, ..older() }), Verdict::Parked);
    assert_eq!(says(&write, &Look { row: row(8), ..settled(7) }), Verdict::Superseded);
    assert_eq!(says(&delete, &settled(10)), Verdict::Agrees);
    assert_eq!(says(&delete, &Look { row: absent(), horizon: v(10), ..settled(10) }), Verdict::Agrees);
    // A row of somebody else, long after our delete.
    assert_eq!(says(&delete, &Look { row: bare_row(3), horizon: v(12), ..settled(10) }), Verdict::Agrees);
    // What the drain tells the hot store of a key whose tombstone was purged.
    let purged = Look { row: absent(), horizon: v(20), ..settled(7) };
    assert_eq!(says(&write, &held(purged.clone(), slot(20, Stage::Clean))), Verdict::Agrees);
    assert_eq!(says(&write, &purged), Verdict::AfterTheLog);
}

#[test]
fn a_clean_image_that_only_one_look_saw_proves_nothing() {
    let moved = Look { before: hot(slot(5, Stage::Clean)), ..settled(7) };
    assert_eq!(says(&logged(5), &moved), Verdict::Superseded);
    let other_epoch = Hot { epoch: Epoch(2), ..hot(slot(5, Stage::Clean)) };
    let opened = Look { after: other_epoch, ..held(settled(7), slot(5, Stage::Clean)) };
    assert_eq!(says(&logged(5), &opened), Verdict::Superseded);
    let expired = Look { before: hot(slot(7, Stage::Clean)), row: row(5), ..settled(7) };
    assert_eq!(says(&logged(7), &expired), Verdict::Moving);
}

#[test]
fn each_wrong_state_is_named() {
    let absent = || Held::Row(DatabaseRow::Absent);
    let deleted = |n| Held::Row(DatabaseRow::Deleted { version: v(n) });
    let tampered = |n| Held::Row(DatabaseRow::Present { version: v(n), row: Row::default() });
    let with = |row| Look { row, ..settled(7) };
    let clean = |n, row| held(with(row), slot(n, Stage::Clean));
    let purged = |row| Look { horizon: v(30), ..with(row) };
    let cases = [
        (Lost, 7, with(absent())),
        (Lost, 7, with(row(5))),
        (Lost, 7, with(bare_row(7))),
        (Lost, 7, Look { is_newest: true, ..purged(absent()) }),
        // What is there of an older write does not stand for the newer one.
        (Lost, 7, clean(5, row(5))),
        (NotInHotStore, 7, Look { is_committed: false, ..with(row(5)) }),
        (NotInHotStore, 7, Look { is_committed: false, ..with(absent()) }),
        (Stale, 7, clean(7, row(5))),
        (Stale, 7, clean(7, bare_row(7))),
        (RowMissing, 7, clean(7, absent())),
        (RowMissing, 7, clean(7, deleted(7))),
        (RowMissing, 7, Look { horizon: v(30), ..clean(7, absent()) }),
        // Where the ledger keeps the versions.
        (RowMissing, 7, with(deleted(7))),
        (Phantom, 10, with(tampered(10))),
        (Phantom, 10, with(bare_row(7))),
        (Phantom, 10, clean(10, bare_row(7))),
        (TombstoneMissing, 10, with(absent())),
        (TombstoneMissing, 10, clean(10, absent())),
        (ContentDiffers, 7, with(tampered(7))),
        (ContentDiffers, 7, clean(7, tampered(7))),
        (ContentDiffers, 7, held(with(tampered(7)), slot(7, Stage::Dirty))),
        (HotStoreDiffers, 5, clean(7, tampered(7))),
        (HotStoreDiffers, 7, held(with(row(7)), Slot::Image { version: v(7), image: image(8), stage: Stage::Clean })),
        (HotStoreStale, 7, clean(5, row(7))),
        (HotStoreStale, 7, held(with(row(7)), slot(5, Stage::Dirty))),
        (HotStoreStale, 7, held(with(row(7)), slot(5, Stage::Parked))),
        (ParkedLost, 7, Look { letter: Letter::Kept, ..with(row(5)) }),
        (NeverGiven, 7, with(row(CLOCK + 1))),
        (RowUnreadable, 7, with(Held::Unreadable(v(7)))),
        (
            HotStoreUnreadable,
            7,
            Look {
                before: Hot { epoch: Epoch(1), slot: HotSlot::Unreadable },
                after: Hot { epoch: Epoch(1), slot: HotSlot::Unreadable },
                ..settled(7)
            },
        ),
    ];
    for (kind, version, look) in cases {
        assert_eq!(says(&logged(version), &look), Verdict::Differs(kind), "{look:?}");
    }
}

#[test]
fn what_may_be_void_and_what_an_earlier_schema_wrote_is_not_judged() {
    let void = Logged { epoch: Epoch(0), is_in_force: false, ..logged(7) };
    let lost = Look { row: row(5), ..settled(7) };
    assert_eq!(says(&void, &lost), Verdict::Undecided(Undecided::MayBeVoid));
    // That of the epoch in which the shard is open can't be.
    assert_eq!(says(&Logged { is_in_force: false, ..logged(7) }, &lost), Verdict::Differs(Lost));
    // Hot store against database needs no log.
    let stale = held(lost, slot(7, Stage::Clean));
    assert_eq!(says(&void, &stale), Verdict::Differs(Stale));
    let earlier = Logged { image: Image { fingerprint: model::Fingerprint(1), ..image(8) }, ..logged(7) };
    assert_eq!(says(&earlier, &settled(7)), Verdict::Undecided(Undecided::EarlierSchema));
}

#[test]
fn a_system_at_rest_agrees() {
    let write = [Action::Write { delete: false }, Action::Produce(0)];
    let drain = [Action::Apply(9), Action::Mark, Action::Commit];
    let mut rest = System::default();
    rest.run(write.iter().chain(&drain));
    assert_eq!(rest.observe_at_rest(), Some(Verdict::Agrees));
    rest.run(write.iter().chain(&[Action::Refuse(9), Action::Park, Action::Commit]));
    assert_eq!(rest.observe_at_rest(), Some(Verdict::Parked));
    rest.run(&[Action::NotePurge, Action::RemoveParked]);
    assert_eq!(rest.observe_at_rest(), Some(Verdict::GivenUp));
    rest.run([Action::Write { delete: true }, Action::Produce(0)].iter().chain(&drain));
    assert_eq!(rest.observe_at_rest(), Some(Verdict::Agrees));
    rest.run(&[Action::Expire, Action::PurgeTombstone]);
    assert_eq!(rest.observe_at_rest(), Some(Verdict::Agrees));
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => any::<bool>().prop_map(|delete| Action::Write { delete }),
        4 => (0usize..3).prop_map(Action::Produce),
        1 => Just(Action::Relay),
        4 => (1usize..5).prop_map(Action::Apply),
        2 => (1usize..5).prop_map(Action::Refuse),
        4 => Just(Action::Mark),
        3 => Just(Action::Park),
        4 => Just(Action::Commit),
        1 => Just(Action::Crash),
        2 => Just(Action::Expire),
        2 => Just(Action::Fill),
        2 => Just(Action::NotePurge),
        2 => Just(Action::RemoveParked),
        2 => Just(Action::PurgeTombstone),
    ]
}

/// One step, or some that often come one after the other: chance alone seldom gets a write through.
fn actions() -> impl Strategy<Value = Vec<Action>> {
    let drained = || [Action::Apply(9), Action::Mark, Action::Commit];
    let purged = move || drained().into_iter().chain([Action::Expire, Action::PurgeTombstone]);
    let refused = || [Action::Refuse(9), Action::Mark, Action::Park, Action::Commit];
    prop_oneof![
        4 => action().prop_map(|action| vec![action]),
        3 => any::<bool>().prop_map(|delete| vec![Action::Write { delete }, Action::Produce(0)]),
        2 => Just(drained().into()),
        2 => Just(drained().into_iter().chain([Action::Expire]).collect()),
        2 => Just(purged().collect()),
        2 => Just([Action::Write { delete: true }, Action::Produce(0)].into_iter().chain(purged()).collect()),
        2 => Just(refused().into()),
        1 => Just(refused().into_iter().chain([Action::NotePurge, Action::RemoveParked]).collect()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn a_correct_system_never_differs_however_its_steps_lie_between_the_looks(
        parts in prop::collection::vec(prop::collection::vec(actions(), 0..5), 8),
        window in (0usize..6, 0usize..12),
    ) {
        let mut system = System::default();
        let mut observed = Observed::default();
        for (at, actions) in parts.iter().enumerate() {
            system.run(actions.iter().flatten());
            system.observe(at, window, &mut observed);
        }
        if let Some(verdict) = observed.verdict() {
            prop_assert!(!matches!(verdict, Verdict::Differs(_)), "{verdict:?} of {observed:?} in {system:?}");
        }
    }
}

impl Observed {
    fn verdict(&self) -> Option<Verdict> {
        Some(says(self.logged.as_ref()?, self.look.as_ref()?))
    }
}

impl System {
    /// What is said while nothing happens.
    fn observe_at_rest(&self) -> Option<Verdict> {
        let mut observed = Observed::default();
        for at in 0..8 {
            self.observe(at, (0, usize::MAX), &mut observed);
        }
        observed.verdict()
    }
}
