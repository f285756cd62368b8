//! What must hold of any bytes whatsoever that the file gives back; see the laws of `model`. A law panics where it is
//! broken.

use bytes::Bytes;

use super::blob;
use crate::log::Outgoing;

/// What is read of a blob has offsets that rise, and the records of one partition are written as a blob of which the same
/// is read. With another checksum nothing is read.
pub fn blob(input: &[u8]) {
    let checksum = blob::checksum(7, input);
    assert_eq!(blob::decode(7, checksum ^ 1, input), Err(blob::BlobError::Checksum));
    let Ok(records) = blob::decode(7, checksum, input) else { return };
    for run in records.chunk_by(|a, b| a.from == b.from && a.offset.checked_add(1) == Some(b.offset)) {
        let outgoing = |key: &Bytes, payload: &Bytes| (key.clone(), payload.clone());
        let run_of: Vec<(Outgoing, i64)> = run
            .iter()
            .map(|record| {
                let (key, payload) = outgoing(&record.key, &record.payload);
                (Outgoing { to: record.from.clone(), key, payload }, record.offset)
            })
            .collect();
        let body = blob::encode(run_of.iter().map(|(record, offset)| (record, *offset)));
        assert_eq!(blob::decode(8, blob::checksum(8, &body), &body).as_deref(), Ok(run));
    }
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
        replay::replay("../..", "blob", blob);
    }

    proptest! {
        #[test]
        fn it_holds_of_whatever_chance_makes(input in prop::collection::vec(any::<u8>(), 0..100)) {
            blob(&input);
        }
    }
}
