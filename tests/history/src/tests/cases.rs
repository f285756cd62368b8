//! Each finding provoked, next to what only looks like it.

use super::*;
use Action::Read;
use Outcome::{Refused, Unknown};

#[test]
fn an_acknowledged_write_that_is_in_the_database_or_was_overtaken_is_not_lost() {
    story().op(1, 2, put(1), queued(10)).sample(5, true, whole(1, 10)).is_fine();
    story().op(1, 2, put(1), queued(10)).op(3, 4, put(2), Unknown).sample(5, true, whole(2, 20)).is_fine();
    story().op(1, 2, put(1), queued(10)).op(3, 4, delete(), Unknown).sample(5, true, None).is_fine();
    story().op(1, 2, put(1), queued(10)).op(3, 4, delete(), queued(11)).sample(5, true, None).is_fine();
}

#[test]
fn an_acknowledged_write_that_the_database_does_not_have_is_lost() {
    assert_eq!(story().op(1, 2, put(1), queued(10)).sample(5, true, None).counts(), LOST);
    let older =
        story().op(1, 2, put(1), queued(10)).op(3, 4, put(2), queued(11)).sample(5, true, whole(1, 10)).counts();
    assert_eq!(older, LOST);
    assert_eq!(story().op(1, 2, put(1), logged(10)).sample(5, true, None).counts(), LOST);
    // The delete was certainly refused.
    let mut refused = story();
    refused.op(1, 2, put(1), queued(10)).op(3, 4, delete(), Refused(Refusal::Other)).sample(5, true, None);
    assert_eq!(refused.counts(), LOST);
}

#[test]
fn what_lay_in_the_hot_store_only_may_go_with_its_tail_and_nothing_else() {
    story().op(1, 2, put(1), logged(10)).loss(3, 4).sample(5, true, None).is_fine();
    story().op(1, 2, put(1), logged(10)).loss(3, 4).sample(5, true, whole(1, 10)).is_fine();
    story().op(1, 2, put(1), Unknown).op(2, 3, Read, read(1, 10)).loss(3, 4).op(5, 6, Read, NOT_FOUND).is_fine();
    assert_eq!(story().op(1, 2, put(1), queued(10)).loss(3, 4).sample(5, true, None).counts(), LOST);
    assert_eq!(story().op(1, 2, put(1), acked(Level::Applied, 10, 1)).loss(3, 4).sample(5, true, None).counts(), LOST);
    // The loss was over before.
    assert_eq!(story().loss(1, 2).op(3, 4, put(1), logged(10)).sample(5, true, None).counts(), LOST);
    // What was in the database stays there.
    let mut in_database = story();
    in_database.op(1, 2, put(1), logged(10)).sample(3, false, whole(1, 10)).loss(4, 5).op(6, 7, Read, NOT_FOUND);
    assert_eq!(in_database.counts(), STALE);
}

#[test]
fn a_read_may_miss_what_is_not_answered_yet_but_nothing_that_is() {
    story().op(1, 2, put(1), queued(10)).op(3, 6, put(2), queued(11)).op(4, 5, Read, read(1, 10)).is_fine();
    story().op(1, 2, put(1), queued(10)).op(3, 6, put(2), queued(11)).op(4, 5, Read, read(2, 11)).is_fine();
    // It ended at the very instant at which the read began.
    story().op(1, 2, put(1), queued(10)).op(3, 4, put(2), queued(11)).op(4, 5, Read, read(1, 10)).is_fine();
    let mut stale = story();
    stale.op(1, 2, put(1), queued(10)).op(3, 4, put(2), queued(11)).op(5, 6, Read, read(1, 10));
    assert_eq!(stale.counts(), STALE);
}

#[test]
fn what_was_read_once_is_not_unread() {
    let mut after_read = story();
    after_read.op(1, 2, put(1), queued(10)).op(3, 99, put(2), Unknown);
    after_read.op(4, 5, Read, read(2, 11)).op(6, 7, Read, read(1, 10));
    assert_eq!(after_read.counts(), STALE);
    let mut at_once = story();
    at_once.op(1, 2, put(1), queued(10)).op(3, 99, put(2), Unknown);
    at_once.op(4, 6, Read, read(2, 11)).op(5, 7, Read, read(1, 10)).is_fine();
}

#[test]
fn not_found_is_stale_where_a_row_must_be_and_nobody_may_have_deleted_it() {
    assert_eq!(story().op(1, 2, put(1), queued(10)).op(3, 4, Read, NOT_FOUND).counts(), STALE);
    story().op(1, 2, put(1), queued(10)).op(3, 9, delete(), queued(11)).op(4, 5, Read, NOT_FOUND).is_fine();
    // That delete stands below the row.
    let mut below = story();
    below.op(1, 3, delete(), queued(9)).op(1, 3, put(1), queued(10)).op(4, 5, Read, NOT_FOUND);
    assert_eq!(below.counts(), STALE);
    // It was sent only afterwards.
    let mut later = story();
    later.op(1, 2, put(1), queued(10)).op(3, 4, Read, NOT_FOUND).op(5, 6, delete(), queued(11));
    assert_eq!(later.counts(), STALE);
    let mut update = story();
    update.op(1, 2, put(1), queued(10)).op(3, 4, self::update(2, Part::Left), Refused(Refusal::Absent));
    assert_eq!(update.counts(), STALE);
}

#[test]
fn a_deleted_row_stays_away() {
    let mut back = story();
    back.op(1, 2, put(1), queued(10)).op(3, 4, delete(), queued(11)).op(5, 6, Read, read(1, 10));
    assert_eq!(back.counts(), RESURRECTED);
    let mut in_database = story();
    in_database.op(1, 2, put(1), queued(10)).op(3, 4, delete(), queued(11)).sample(5, true, whole(1, 10));
    assert_eq!(in_database.counts(), RESURRECTED);
    // Nobody knows of the delete, but NOT_FOUND was read.
    let mut unknown = story();
    unknown.op(1, 2, put(1), queued(10)).op(3, 9, delete(), Unknown);
    unknown.op(4, 5, Read, NOT_FOUND).op(6, 7, Read, read(1, 10));
    assert_eq!(unknown.counts(), RESURRECTED);
    let mut exists = story();
    exists.op(1, 2, put(1), queued(10)).op(3, 4, delete(), queued(11)).op(5, 6, create(2), Refused(Refusal::Exists));
    assert_eq!(exists.counts(), RESURRECTED);
}

#[test]
fn a_row_may_come_back_where_the_delete_was_lost_overtaken_or_never_took_effect() {
    let mut lost = story();
    lost.op(1, 2, put(1), queued(10)).op(3, 4, delete(), logged(11)).loss(5, 6).op(7, 8, Read, read(1, 10)).is_fine();
    let mut overtaken = story();
    overtaken.op(1, 2, put(1), queued(10)).op(3, 4, delete(), queued(11));
    overtaken.op(5, 6, put(2), Unknown).op(7, 8, Read, read(2, 12)).is_fine();
    story().op(1, 2, put(1), queued(10)).op(3, 4, delete(), Unknown).op(5, 6, Read, read(1, 10)).is_fine();
    let mut exists = story();
    exists
        .op(1, 2, delete(), queued(10))
        .op(3, 9, put(1), Unknown)
        .op(4, 5, create(2), Refused(Refusal::Exists))
        .is_fine();
}

#[test]
fn a_row_that_nobody_wrote_is_a_phantom() {
    assert_eq!(story().op(1, 2, Read, read(7, 10)).counts(), PHANTOM);
    assert_eq!(story().op(1, 2, put(1), Refused(Refusal::Other)).op(3, 4, Read, read(1, 10)).counts(), PHANTOM);
    assert_eq!(story().op(1, 2, Read, read(1, 10)).op(3, 4, put(1), queued(10)).counts(), PHANTOM);
    assert_eq!(story().op(1, 2, create(1), Refused(Refusal::Exists)).counts(), PHANTOM);
    // Half of one write, half of another.
    let half = seen(Image { value: 2, left: 1, right: 2 }, 11);
    let mut mixed = story();
    mixed.op(1, 2, put(1), queued(10)).op(3, 4, put(2), queued(11)).op(5, 6, Read, Outcome::Read(Some(half)));
    assert_eq!(mixed.counts(), PHANTOM);
    story().op(1, 9, put(1), Unknown).op(2, 3, Read, read(1, 10)).is_fine();
    story().base(5, Some(Image::whole(3))).op(2, 3, Read, read(3, 5)).is_fine();
}

#[test]
fn versions_rise_with_time() {
    assert_eq!(story().op(1, 2, put(1), queued(10)).op(3, 4, put(2), queued(9)).counts(), OUT_OF_ORDER);
    story().op(1, 3, put(1), queued(10)).op(2, 4, put(2), queued(9)).is_fine();
    // Also above what was only read, and above what is in the database.
    let mut above_read = story();
    above_read.op(1, 99, put(1), Unknown).op(2, 3, Read, read(1, 10)).op(4, 5, put(2), queued(9));
    assert_eq!(above_read.counts(), OUT_OF_ORDER);
    assert_eq!(story().base(20, Some(Image::whole(3))).op(1, 2, put(1), queued(19)).counts(), OUT_OF_ORDER);
    // A lost version comes again.
    story().op(1, 2, put(1), logged(10)).loss(3, 4).op(5, 6, put(2), acked(Level::Queued, 10, 2)).is_fine();
    assert_eq!(story().op(1, 4, put(1), queued(10)).op(1, 4, put(2), queued(10)).counts(), OUT_OF_ORDER);
}

#[test]
fn items_of_a_batch_keep_their_order() {
    let mut turned = story();
    turned.op(1, 4, put(1), queued(11)).batch(7, 0).op(1, 4, put(2), queued(10)).batch(7, 1);
    assert_eq!(turned.counts(), OUT_OF_ORDER);
    story().op(1, 4, put(1), queued(10)).batch(7, 0).op(1, 4, put(2), queued(11)).batch(7, 1).is_fine();
}

#[test]
fn a_write_takes_effect_once() {
    let mut twice = story();
    twice.op(1, 2, put(1), queued(10)).op(3, 4, put(2), queued(11)).op(5, 6, Read, read(1, 12));
    assert_eq!(twice.counts(), OUT_OF_ORDER);
    let mut unknown = story();
    unknown.op(1, 9, put(1), Unknown).op(2, 3, Read, read(1, 10)).op(10, 11, Read, read(1, 12));
    assert_eq!(unknown.counts(), OUT_OF_ORDER);
}

#[test]
fn a_write_that_was_lost_may_take_effect_again_when_it_is_repeated() {
    let mut repeated = story();
    repeated.op(1, 9, put(1), acked(Level::Queued, 12, 2)).op(2, 3, Read, read(1, 10)).loss(4, 5);
    repeated.op(6, 7, Read, NOT_FOUND).op(10, 11, Read, read(1, 12)).is_fine();
    let mut unknown = story();
    unknown.op(1, 9, put(1), Unknown).op(2, 3, Read, read(1, 10)).loss(4, 5).sample(11, true, whole(1, 12)).is_fine();
    // On another row than the first time.
    let mut updated = story();
    updated.op(1, 2, put(1), queued(10)).op(3, 4, put(2), acked(Level::Logged, 11, 1));
    updated.op(5, 19, update(3, Part::Left), acked(Level::Queued, 13, 2));
    let image = |right| Image { value: 3, left: 3, right };
    updated.op(6, 7, Read, Outcome::Read(Some(seen(image(2), 12)))).loss(8, 9);
    updated.op(20, 21, Read, Outcome::Read(Some(seen(image(1), 13)))).is_fine();
    let mut deleted = story();
    deleted.op(1, 2, put(1), queued(10)).op(3, 19, delete(), acked(Level::Queued, 14, 2)).op(4, 5, Read, NOT_FOUND);
    deleted.loss(6, 7).op(8, 9, Read, read(1, 10)).op(10, 11, put(2), acked(Level::Queued, 13, 2));
    deleted.op(20, 21, Read, NOT_FOUND).is_fine();
    // What stood in between came in the second life only. The second effect is held to it, and neither may hold what nobody wrote.
    let effects = |first, second| {
        let mut story = story();
        story.op(1, 2, put(1), queued(10)).op(3, 19, update(3, Part::Left), acked(Level::Queued, 15, 2));
        story.op(4, 5, Read, Outcome::Read(Some(seen(image(first), 14)))).loss(6, 7);
        story.op(8, 9, put(2), acked(Level::Queued, 12, 2));
        story.op(20, 21, Read, Outcome::Read(Some(seen(image(second), 15))));
        story
    };
    effects(1, 2).is_fine();
    assert_eq!(effects(1, 1).counts(), OUT_OF_ORDER);
    assert_eq!(effects(9, 2).counts(), PHANTOM);
    // What the database has, the log had, and so the request.
    let mut drained = story();
    drained.op(1, 9, put(1), acked(Level::Queued, 12, 2)).sample(3, false, whole(1, 10)).loss(4, 5);
    assert_eq!(drained.counts(), OUT_OF_ORDER);
    let mut kept = story();
    kept.op(1, 9, put(1), queued(12)).op(2, 3, Read, read(1, 10)).loss(20, 21);
    assert_eq!(kept.counts(), OUT_OF_ORDER);
}

#[test]
fn a_write_that_is_repeated_after_its_answer_is_answered_again_and_not_done_again() {
    let repeat = |outcome| {
        let mut story = story();
        story.op(1, 2, create(1), queued(10)).op(3, 4, put(2), queued(11)).op(5, 6, create(1), outcome);
        story
    };
    repeat(queued(10)).is_fine();
    repeat(Unknown).op(7, 8, Read, read(2, 11)).is_fine();
    repeat(Refused(Refusal::Other)).op(7, 8, Read, read(2, 11)).is_fine();
    assert_eq!(repeat(queued(12)).counts(), OUT_OF_ORDER);
    assert_eq!(repeat(Refused(Refusal::Exists)).counts(), OUT_OF_ORDER);
    // What it says holds: the database has this one or a newer one.
    assert_eq!(repeat(acked(Level::Applied, 10, 1)).sample(7, false, None).counts(), LOST);
    let mut lost = story();
    lost.op(1, 2, create(1), logged(10)).loss(3, 4).op(5, 6, create(1), acked(Level::Queued, 12, 2));
    lost.op(7, 8, Read, read(1, 12)).is_fine();
}

#[test]
fn an_epoch_never_falls() {
    let mut back = story();
    back.op(1, 2, put(1), acked(Level::Queued, 10, 2)).op(3, 4, put(2), acked(Level::Queued, 11, 1));
    assert_eq!(back.counts(), OUT_OF_ORDER);
    story().op(1, 3, put(1), acked(Level::Queued, 10, 2)).op(2, 4, put(2), acked(Level::Queued, 9, 1)).is_fine();
}

#[test]
fn a_write_that_asks_for_a_version_finds_that_one() {
    let conditional = |stamp| Action::Put { value: 3, condition: Condition::At(stamp) };
    let mut overlooked = story();
    overlooked.op(1, 2, put(1), queued(10)).op(3, 9, put(2), queued(11)).op(4, 8, conditional(at(10, 1)), queued(12));
    assert_eq!(overlooked.counts(), OUT_OF_ORDER);
    let mut between = story();
    between
        .op(1, 2, put(1), queued(10))
        .op(3, 9, put(2), queued(12))
        .op(4, 8, conditional(at(10, 1)), queued(11))
        .is_fine();
    let other = Outcome::Read(Some(Seen { epoch: Some(2), ..seen(Image::whole(1), 10) }));
    let mut epoch = story();
    epoch.op(1, 2, put(1), queued(10)).op(3, 4, Read, other);
    epoch.op(5, 6, conditional(at(10, 1)), acked(Level::Queued, 11, 2));
    assert_eq!(epoch.counts(), OUT_OF_ORDER);
    // It took effect in its epoch, an opening put its request back, and only then it was answered, being sent again.
    let mut again = story();
    again.op(1, 2, put(1), queued(10)).op(3, 9, conditional(at(10, 1)), acked(Level::Queued, 11, 2)).is_fine();
    let mut earlier = story();
    earlier.op(1, 2, put(1), queued(10)).op(3, 4, conditional(at(10, 2)), acked(Level::Queued, 11, 1));
    assert_eq!(earlier.counts(), OUT_OF_ORDER);
    // What stood in between was lost before.
    let mut lost = story();
    lost.op(1, 2, put(1), queued(10)).op(3, 4, put(2), logged(11)).loss(5, 6);
    lost.op(7, 8, Read, Outcome::Read(Some(Seen { epoch: Some(2), ..seen(Image::whole(1), 10) })));
    lost.op(9, 10, conditional(at(10, 2)), acked(Level::Queued, 12, 2)).is_fine();
}

#[test]
fn a_create_finds_nothing_and_an_update_a_row() {
    assert_eq!(story().op(1, 2, put(1), queued(10)).op(1, 4, create(2), queued(11)).counts(), OUT_OF_ORDER);
    story().op(1, 2, put(1), queued(10)).op(1, 9, delete(), queued(11)).op(3, 4, create(2), queued(12)).is_fine();
    story().op(1, 2, put(1), queued(10)).op(1, 9, delete(), Unknown).op(3, 4, create(2), queued(12)).is_fine();
    assert_eq!(
        story().op(1, 2, delete(), queued(10)).op(3, 4, update(2, Part::Left), queued(11)).counts(),
        OUT_OF_ORDER
    );
    assert_eq!(story().op(3, 4, update(2, Part::Left), queued(11)).counts(), OUT_OF_ORDER);
    story().op(1, 9, create(1), Unknown).op(3, 4, update(2, Part::Left), queued(11)).is_fine();
    story().base(5, Some(Image::whole(3))).op(3, 4, update(2, Part::Left), queued(11)).is_fine();
    assert_eq!(story().base(5, Some(Image::whole(3))).op(3, 4, create(2), queued(11)).counts(), OUT_OF_ORDER);
}

#[test]
fn an_update_is_built_on_what_stood_there() {
    let built_on = |left, right| Outcome::Read(Some(seen(Image { value: 3, left, right }, 12)));
    let with = |outcome| {
        let mut story = story();
        story.op(1, 2, put(1), queued(10)).op(3, 4, update(2, Part::Right), queued(11));
        story.op(5, 6, update(3, Part::Left), queued(12)).op(7, 8, Read, outcome);
        story
    };
    with(built_on(3, 2)).is_fine();
    assert_eq!(with(built_on(3, 1)).counts(), OUT_OF_ORDER);
    assert_eq!(with(built_on(3, 9)).counts(), PHANTOM);
    // A put in between that is gone again.
    let mut put_lost = story();
    put_lost.op(1, 2, put(1), queued(10)).op(3, 4, put(2), logged(11)).loss(5, 6);
    put_lost.op(7, 8, update(3, Part::Left), acked(Level::Queued, 12, 2)).op(9, 10, Read, built_on(3, 1)).is_fine();
}

#[test]
fn the_database_never_goes_back_even_while_it_is_behind() {
    let mut behind = story();
    behind.op(1, 2, put(1), queued(10)).op(3, 4, put(2), queued(11)).sample(5, false, whole(1, 10)).is_fine();
    behind.sample(6, false, whole(2, 11)).sample(7, true, whole(2, 11)).is_fine();
    let mut back = story();
    back.op(1, 2, put(1), queued(10)).op(3, 4, put(2), queued(11));
    back.sample(5, false, whole(2, 11)).sample(6, false, whole(1, 10)).sample(7, true, whole(2, 11));
    assert_eq!(back.counts(), OUT_OF_ORDER);
    let applied = acked(Level::Applied, 10, 1);
    assert_eq!(story().op(1, 2, put(1), applied).sample(3, false, None).counts(), LOST);
}

#[test]
fn the_horizon_says_what_the_database_has() {
    story().op(1, 2, put(1), queued(10)).sample(3, false, None).horizon(9).is_fine();
    assert_eq!(story().op(1, 2, put(1), queued(10)).sample(3, false, None).horizon(10).counts(), STALE);
    // Nothing can get a version at or below a horizon once it was given.
    assert_eq!(story().sample(1, false, None).horizon(10).op(2, 3, put(1), queued(10)).counts(), STALE);
    story().op(1, 2, put(1), queued(10)).op(2, 3, delete(), queued(11)).sample(4, false, None).horizon(11).is_fine();
    story().op(1, 2, put(1), logged(10)).loss(2, 3).sample(4, false, None).horizon(10).is_fine();
}

#[test]
fn the_next_stretch_begins_with_what_the_database_has_and_what_is_still_unsettled() {
    let mut first = story();
    first.op(1, 2, put(1), queued(10)).op(3, 4, put(2), Unknown).op(13, 14, put(3), Unknown).op(
        15,
        16,
        delete(),
        Unknown,
    );
    first.sample(20, true, whole(1, 10));
    let mut second = Story { history: first.history.next(10) };
    second.op(21, 22, Read, read(3, 11)).is_fine();
    second.op(23, 24, Read, read(2, 12));
    assert_eq!(second.counts(), PHANTOM);
    let mut gone = story();
    gone.op(1, 2, put(1), queued(10)).op(3, 4, delete(), queued(12)).sample(5, true, None);
    let mut after = Story { history: gone.history.next(0) };
    assert_eq!(after.op(21, 22, put(7), queued(11)).counts(), OUT_OF_ORDER);
    // The newer delete was lost, and its version comes again.
    let mut lost = story();
    lost.op(1, 2, delete(), queued(10)).op(3, 4, delete(), logged(12)).loss(5, 6).sample(7, true, None);
    Story { history: lost.history.next(0) }.op(21, 22, put(7), acked(Level::Queued, 11, 2)).is_fine();
    assert_eq!(story().counts(), CLEAN);
}

/// What the database refuses for good is read through us, and never gets there; what is below it does.
#[test]
fn an_unwritable_write_binds_readers_and_not_the_database() {
    let poison = |from| {
        let mut story = story();
        story.history.unwritable.insert(2);
        story.op(1, 2, put(1), queued(10)).op(from, from + 1, put(2), queued(11));
        story
    };
    poison(3).op(5, 6, Read, read(2, 11)).sample(7, true, whole(1, 10)).is_fine();
    poison(3).op(5, 6, Read, read(2, 11)).op(7, 8, put(3), queued(12)).sample(9, true, whole(3, 12)).is_fine();
    assert_eq!(poison(3).op(5, 6, Read, read(1, 10)).counts(), STALE);
    // What it superseded need not have got into the log by itself; what the database had, it keeps.
    poison(3).sample(5, true, None).is_fine();
    let mut kept = story();
    kept.history.unwritable.insert(2);
    kept.op(1, 2, put(1), acked(Level::Applied, 10, 1)).op(3, 4, put(2), queued(11)).sample(5, true, None);
    assert_eq!(kept.counts(), LOST);
    // The horizon passes it, and what it superseded; not what is newer.
    poison(3).sample(5, false, None).horizon(11).is_fine();
    let mut newer = poison(3);
    newer.op(5, 6, put(3), queued(12)).sample(7, false, whole(1, 10)).horizon(12);
    assert_eq!(newer.counts(), STALE);
    // What is applied all the same has been superseded by something that the database has.
    let mut applied = poison(3);
    applied.op(5, 6, put(2), acked(Level::Applied, 11, 1)).sample(7, true, whole(1, 10));
    assert_eq!(applied.counts(), LOST);
}

#[test]
fn what_of_a_batch_was_only_seen_took_effect_in_its_order_too() {
    let mut seen = story();
    seen.op(1, 4, put(1), Unknown).batch(7, 0).op(1, 4, put(2), queued(11)).batch(7, 1);
    seen.op(2, 3, Read, read(1, 10)).sample(6, true, whole(2, 11)).is_fine();
    let mut turned = story();
    turned.op(1, 4, put(1), Unknown).batch(7, 0).op(1, 4, put(2), queued(10)).batch(7, 1);
    turned.sample(5, true, whole(1, 11));
    assert_eq!(turned.counts(), OUT_OF_ORDER);
    turned.loss(2, 3).is_fine();
}

#[test]
fn what_a_watch_told_may_be_old_but_is_in_effect_from_then_on() {
    let image = |value| Some(Image::whole(value));
    let mut late = story();
    late.op(1, 2, put(1), queued(10)).op(3, 4, put(2), queued(11)).told(5, 10, image(1)).told(6, 11, image(2));
    late.is_fine();
    // Nothing that happens to the hot store takes it away again.
    let mut gone = story();
    gone.op(1, 2, put(1), Unknown).told(3, 10, image(1)).loss(4, 5).op(6, 7, Read, NOT_FOUND);
    assert_eq!(gone.counts(), STALE);
    let mut lost = story();
    lost.op(1, 2, put(1), Unknown).told(3, 10, image(1)).loss(4, 5).sample(6, true, None);
    assert_eq!(lost.counts(), LOST);
    let mut back = story();
    back.op(1, 2, put(1), queued(10)).op(3, 4, delete(), Unknown).told(5, 11, None).op(6, 7, Read, read(1, 10));
    assert_eq!(back.counts(), RESURRECTED);
}

#[test]
fn a_watch_tells_of_writes_only() {
    assert_eq!(story().told(3, 10, Some(Image::whole(1))).counts(), PHANTOM);
    assert_eq!(story().told(3, 10, None).counts(), PHANTOM);
    let refused = Refused(Refusal::Other);
    assert_eq!(story().op(1, 2, put(1), refused).told(3, 10, Some(Image::whole(1))).counts(), PHANTOM);
    assert_eq!(story().op(1, 2, delete(), refused).told(3, 10, None).counts(), PHANTOM);
    assert_eq!(story().op(1, 2, delete(), queued(9)).told(3, 10, None).counts(), PHANTOM);
    story().op(1, 2, delete(), Unknown).told(3, 10, None).is_fine();
    // It got another version than it was acknowledged with.
    assert_eq!(story().op(1, 2, put(1), queued(9)).told(3, 10, Some(Image::whole(1))).counts(), OUT_OF_ORDER);
}
