//! What must hold of any bytes whatsoever that Redis gives back; see the laws of `model`. A law panics where it is broken.

use bytes::Bytes;
use model::{Epoch, Shard, Version};

use super::{
    halts,
    keys::{ShardKeys, record_of_name},
    points,
    value::{self, Validity, slot_of},
};
use crate::{Slot, Stage};

/// What is read of a record's value, a record's name, a checkpoint or a halt is written as something that is read as the
/// same.
pub fn redis_value(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    for dirty in [false, true] {
        slot(&bytes, dirty);
    }
    let keys = ShardKeys::new("sa", Shard(17));
    if let Some(record) = record_of_name(&bytes) {
        assert_eq!(keys.record(&record), [keys.record_prefix.as_bytes(), input].concat());
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(read) = points::from_text(text) {
        assert_eq!(points::from_text(&points::to_text(&read)), Ok(read));
    }
    if let Some(read) = halts::from_text(text) {
        assert_eq!(halts::from_text(&halts::to_text(&read)), Some(read));
    }
}

fn slot(bytes: &Bytes, dirty: bool) {
    let valid = Validity { epoch: Epoch(3), lowest: Epoch(2) };
    let Ok(Slot::Image { version, image, stage }) = slot_of(Some(bytes.clone()), dirty, valid) else { return };
    let kind = if stage == Stage::Parked { value::parked_kind_of(&image) } else { value::kind_of(&image) };
    let head = value::head(kind, version, valid.epoch, image.since.unwrap_or(Version::ZERO));
    let payload = value::payload_of(image.clone());
    let again = slot_of(Some([head.as_bytes(), &payload].concat().into()), dirty, valid);
    let Ok(Slot::Image { version: again_version, image: again, stage: again_stage }) = again else {
        panic!("{image:?} was stored as {again:?}");
    };
    // By its bytes, for NaN is not equal to itself.
    assert_eq!((again_version, again.encode(), again_stage), (version, image.encode(), stage));
}

#[cfg(test)]
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_holds_of_all_that_is_kept() {
        replay::replay("../..", "redis_value", redis_value);
    }

    proptest! {
        #[test]
        fn it_holds_of_whatever_chance_makes(
            input in prop::collection::vec(any::<u8>(), 0..100), text in "[ITPQLA*]?[0-9a-z\\x00 .\n]{0,60}",
        ) {
            redis_value(&input);
            redis_value(text.as_bytes());
        }
    }
}
