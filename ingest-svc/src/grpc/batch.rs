//! The answer to many reads, as far as it fits into a message.

use prost::{Message as _, encoding::encoded_len_varint};
use proto::{
    Reason,
    v1::{self, get_item_result::Outcome},
};

use super::{answer, failure::Failure};
use crate::read::{Found, ReadError};

/// What an item's status may take; room for it is kept for every item.
const STATUS_BYTES: usize = 512;

/// Puts the results into one message of at most `max_bytes`, in their order. What does not fit is to be asked for again, but
/// for a record that is too large for any answer.
pub(super) fn answer(results: Vec<Result<Found, Failure>>, max_bytes: usize) -> v1::BatchGetRecordsResponse {
    let reserved = (results.len() * STATUS_BYTES).min(max_bytes / 2);
    let mut left = max_bytes - reserved;
    let results = results.into_iter().map(|result| {
        let found = match result {
            Ok(found) => found,
            Err(failure) => return status(failure),
        };
        let item = v1::GetItemResult { outcome: Some(Outcome::Record(answer::found(found))) };
        let bytes = framed(item.encoded_len());
        if bytes <= left {
            left -= bytes;
            return item;
        }
        if bytes > max_bytes - reserved {
            let message =
                format!("the record has {bytes} bytes, more than an answer takes: choose columns, or ask for it alone");
            return status(Failure::new(Reason::AnswerTooLarge, message));
        }
        status(ReadError::NoRoom.into())
    });
    v1::BatchGetRecordsResponse { results: results.collect() }
}

fn status(failure: Failure) -> v1::GetItemResult {
    v1::GetItemResult { outcome: Some(Outcome::Status(failure.into_item_status())) }
}

/// The bytes of a repeated message of that length: with its tag and its length.
fn framed(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::{ColumnName, Row, Value};
    use tonic_types::RpcStatusExt as _;

    use super::*;

    fn found(bytes: usize) -> Result<Found, Failure> {
        let row: Row = [(ColumnName::new("note").unwrap(), Value::Text("x".repeat(bytes)))].into_iter().collect();
        Ok(Found { row, etag: None })
    }

    fn outcomes(answer: &v1::BatchGetRecordsResponse) -> Vec<String> {
        let outcome = |result: &v1::GetItemResult| match result.outcome.as_ref().unwrap() {
            Outcome::Record(_) => "OK".to_owned(),
            Outcome::Status(status) => status.get_error_details().error_info().unwrap().reason.clone(),
        };
        answer.results.iter().map(outcome).collect()
    }

    #[test]
    fn what_does_not_fit_is_to_be_asked_for_again_and_the_answer_never_exceeds_its_bound() {
        let full = || Err(ReadError::NoRoom.into());
        let results = vec![found(3000), found(6000), found(3000), found(20_000), full(), found(100)];
        let answer = answer(results, 10_000);
        assert_eq!(outcomes(&answer), ["OK", "ANSWER_FULL", "OK", "ANSWER_TOO_LARGE", "ANSWER_FULL", "OK"]);
        assert!(answer.encoded_len() <= 10_000, "{}", answer.encoded_len());
        // Asked for again, each comes through in the end.
        assert_eq!(outcomes(&super::answer(vec![found(6000)], 10_000)), ["OK"]);
    }

    #[test]
    fn a_thousand_statuses_fit_into_what_is_kept_for_them() {
        let results = (0..1000).map(|_| Err(ReadError::NoRoom.into())).collect();
        let answer = answer(results, 4 << 20);
        assert!(answer.encoded_len() <= 1000 * STATUS_BYTES, "{}", answer.encoded_len());
    }
}
