//! The answers to one call of `publish`: gathered from the delivery callbacks, handed over together.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::oneshot;

use crate::log::PublishError;

type Answer = Result<i64, PublishError>;

struct State {
    answers: Vec<Option<Answer>>,
    open: usize,
    done: Option<oneshot::Sender<Vec<Answer>>>,
}

/// The records of one call.
pub(super) struct Batch {
    state: Mutex<State>,
}

/// What librdkafka keeps for one record, and gives back with its fate.
pub(super) struct Ticket {
    pub(super) batch: Arc<Batch>,
    pub(super) index: usize,
    pub(super) bytes: usize,
}

impl Batch {
    pub(super) fn new(records: usize) -> (Arc<Self>, oneshot::Receiver<Vec<Answer>>) {
        let (done, receiver) = oneshot::channel();
        let state = State { answers: vec![None; records], open: records, done: Some(done) };
        (Arc::new(Self { state: Mutex::new(state) }), receiver)
    }

    /// Answers for one record; only the first answer counts.
    pub(super) fn settle(&self, index: usize, answer: Answer) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.answers.get_mut(index) {
            Some(slot @ None) => *slot = Some(answer),
            _ => return,
        }
        state.open -= 1;
        if state.open == 0
            && let Some(done) = state.done.take()
        {
            // Nobody waits any more: the call was given up, its records were not.
            let _ = done.send(state.answers.drain(..).map(|answer| answer.unwrap_or_else(unanswered)).collect());
        }
    }

    /// Ends the wait: what has no answer by now is unknown.
    pub(super) fn give_up(&self) -> Vec<Answer> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done = None;
        state.answers.drain(..).map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }
}

fn unanswered() -> Answer {
    Err(PublishError::Unknown("no word about it came in time".into()))
}

/// What a failed delivery means. Once a record was handed over nothing but a refusal for its size is certain: a
/// time-out can hit a record that is in the log, or that a retry had already put there.
pub(super) fn after_hand_over(error: &KafkaError, bytes: usize) -> PublishError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => PublishError::TooLarge { bytes },
        Some(code) => PublishError::Unknown(code.to_string()),
        None => PublishError::Unknown(error.to_string()),
    }
}

/// What a refused hand-over means: it never left us.
pub(super) fn at_hand_over(error: &KafkaError, bytes: usize) -> PublishError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => PublishError::TooLarge { bytes },
        Some(RDKafkaErrorCode::QueueFull) => {
            PublishError::Refused("more records wait for Kafka than may wait".to_owned())
        }
        Some(code) => PublishError::Refused(code.to_string()),
        None => PublishError::Refused(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_records_once_all_are_there() {
        let (batch, mut done) = Batch::new(3);
        batch.settle(2, Ok(12));
        batch.settle(0, Err(PublishError::Refused("full".into())));
        assert!(done.try_recv().is_err());
        batch.settle(0, Ok(99));
        batch.settle(1, Ok(11));
        let answers = done.await.unwrap();
        assert_eq!(answers, [Err(PublishError::Refused("full".into())), Ok(11), Ok(12)]);
    }

    #[test]
    fn what_has_no_answer_is_unknown_and_later_answers_change_nothing() {
        let (batch, _done) = Batch::new(2);
        batch.settle(1, Ok(5));
        let answers = batch.give_up();
        assert!(matches!(answers[0], Err(PublishError::Unknown(_))));
        assert_eq!(answers[1], Ok(5));
        batch.settle(0, Ok(4));
    }

    #[test]
    fn after_the_hand_over_a_failure_is_unknown_and_before_it_a_refusal() {
        let error = |code| KafkaError::MessageProduction(code);
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::PurgeInflight,
            RDKafkaErrorCode::Fatal,
            RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
            RDKafkaErrorCode::TopicAuthorizationFailed,
        ] {
            assert!(matches!(after_hand_over(&error(code), 1), PublishError::Unknown(_)), "{code}");
        }
        let too_large = error(RDKafkaErrorCode::MessageSizeTooLarge);
        assert_eq!(after_hand_over(&too_large, 7), PublishError::TooLarge { bytes: 7 });
        assert_eq!(at_hand_over(&too_large, 7), PublishError::TooLarge { bytes: 7 });
        assert!(matches!(at_hand_over(&error(RDKafkaErrorCode::QueueFull), 1), PublishError::Refused(_)));
    }
}
