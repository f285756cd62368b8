//! The layout of checkpoints and starts in a shard's header: one line per topic, `topic offset epoch`.

use std::{collections::BTreeMap, fmt::Write as _};

use model::{Epoch, Topic};

use crate::LogPoint;

pub(super) fn to_text(points: &BTreeMap<Topic, LogPoint>) -> String {
    let mut text = String::new();
    for (topic, LogPoint { offset, epoch }) in points {
        // Writing to a string never fails.
        let _ = writeln!(text, "{topic} {offset} {epoch}");
    }
    text
}

pub(super) fn from_text(text: &str) -> Result<BTreeMap<Topic, LogPoint>, String> {
    text.lines().map(|line| point(line).ok_or_else(|| format!("{line:?} is no point of the log"))).collect()
}

fn point(line: &str) -> Option<(Topic, LogPoint)> {
    let mut fields = line.split(' ');
    let topic = Topic::new(fields.next()?).ok()?;
    let offset = fields.next()?.parse().ok()?;
    let epoch = Epoch(fields.next()?.parse().ok()?);
    fields.next().is_none().then_some((topic, LogPoint { offset, epoch }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn points_read_back_as_they_were_written(
            points in prop::collection::btree_map("[a-zA-Z0-9._-]{1,40}", (any::<i64>(), any::<u32>()), 0..5)
        ) {
            let points: BTreeMap<Topic, LogPoint> = points
                .into_iter()
                .map(|(topic, (offset, epoch))| (Topic::new(topic).unwrap(), LogPoint { offset, epoch: Epoch(epoch) }))
                .collect();
            prop_assert_eq!(from_text(&to_text(&points)), Ok(points));
        }
    }

    #[test]
    fn the_released_layout_can_be_read() {
        let points = from_text("shock-absorber.payments 42 7\n").unwrap();
        let point = LogPoint { offset: 42, epoch: Epoch(7) };
        assert_eq!(points, BTreeMap::from([(Topic::new("shock-absorber.payments").unwrap(), point)]));
    }

    #[test]
    fn what_is_no_point_is_an_error() {
        for text in ["a", "a 1", "a 1 2 3", "a x 2", "a 1 -2", " 1 2"] {
            assert!(from_text(text).is_err(), "{text:?}");
        }
    }
}
