//! What is the same for every call: a task of its own, a measure of its time, an answer that fits.

use std::{future::Future, time::Instant};

use futures::{StreamExt as _, future, stream, stream::BoxStream};
use opentelemetry::{KeyValue, global, metrics::Histogram};
use prost::Message;
use proto::Reason;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::{admission::InFlight, failure::Failure};

/// Works on requests.
#[derive(Debug, Clone)]
pub(super) struct Work {
    tasks: TaskTracker,
    max_message_bytes: usize,
    durations: Histogram<f64>,
}

impl Work {
    pub(super) fn new(tasks: TaskTracker, max_message_bytes: usize) -> Self {
        let durations = global::meter("shock_absorber.ingest")
            .f64_histogram("shock_absorber.ingest.request.duration")
            .with_unit("s")
            .with_description("from a request's arrival to its answer, by method and reason")
            .with_boundaries(vec![0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0])
            .build();
        Self { tasks, max_message_bytes, durations }
    }

    /// Larger answers are not sent.
    pub(super) fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// Works on a request in a task of its own, to its end also when the client hangs up: a read that was broken off
    /// would leave its lease behind, and others waiting for it. Until then the request counts as in flight.
    pub(super) async fn on<Q, A, F>(
        &self,
        method: &'static str,
        mut request: Request<Q>,
        answer: impl FnOnce(Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        A: Message + Send + 'static,
        F: Future<Output = Result<A, Failure>> + Send + 'static,
    {
        let begun = Instant::now();
        let permit = request.extensions_mut().remove::<InFlight>();
        let answer = answer(request.into_inner());
        let task = self.tasks.spawn(async move {
            let answer = answer.await;
            drop(permit);
            answer
        });
        let answer = task.await.unwrap_or_else(|error| {
            tracing::error!(method, %error, "a request ended before its answer was known");
            Err(Failure::new(Reason::Internal, "the server failed while it worked on the request"))
        });
        self.answered(method, begun, answer)
    }

    /// Works on a request that only waits and looks: it ends with its client.
    pub(super) async fn while_asked<A: Message>(
        &self,
        method: &'static str,
        answer: impl Future<Output = Result<A, Failure>>,
    ) -> Result<Response<A>, Status> {
        let begun = Instant::now();
        let answer = answer.await;
        self.answered(method, begun, answer)
    }

    /// Works on a request in a task of its own that gives out its answer page by page, and in the end what went wrong.
    pub(super) fn in_pages<Q, P, A, F>(
        &self,
        method: &'static str,
        mut request: Request<Q>,
        give_out: impl FnOnce(Q, mpsc::Sender<P>) -> F,
        to_answer: impl FnMut(P) -> A + Send + 'static,
    ) -> BoxStream<'static, Result<A, Status>>
    where
        P: Send + 'static,
        A: Send + 'static,
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let begun = Instant::now();
        let permit = request.extensions_mut().remove::<InFlight>();
        let (pages, taken) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        let work = give_out(request.into_inner(), pages);
        let this = self.clone();
        self.tasks.spawn(async move {
            let outcome = work.await;
            drop(permit);
            this.measure(method, begun, &outcome);
            // Nobody asks any more if this fails.
            drop(ended.send(outcome));
        });
        let problem = async move {
            match end.await {
                Ok(outcome) => outcome.err(),
                Err(_) => Some(Failure::new(Reason::Internal, "the server failed while it worked on the request")),
            }
        };
        let problem = stream::once(problem).filter_map(future::ready);
        ReceiverStream::new(taken)
            .map(to_answer)
            .map(Ok)
            .chain(problem.map(|problem| Err(problem.into_status())))
            .boxed()
    }

    fn answered<A: Message>(
        &self,
        method: &'static str,
        begun: Instant,
        answer: Result<A, Failure>,
    ) -> Result<Response<A>, Status> {
        let answer = answer.and_then(|answer| self.fitting(answer));
        self.measure(method, begun, &answer);
        answer.map(Response::new).map_err(Failure::into_status)
    }

    fn measure<A>(&self, method: &'static str, begun: Instant, answer: &Result<A, Failure>) {
        let reason = answer.as_ref().map_or_else(|failure| failure.reason().as_str(), |_| "OK");
        let labels = [KeyValue::new("method", method), KeyValue::new("reason", reason)];
        self.durations.record(begun.elapsed().as_secs_f64(), &labels);
    }

    /// An answer that tonic could not send would end as an error without a reason.
    fn fitting<A: Message>(&self, answer: A) -> Result<A, Failure> {
        let (bytes, max) = (answer.encoded_len(), self.max_message_bytes);
        if bytes <= max {
            return Ok(answer);
        }
        let message = format!("the answer would have {bytes} bytes, more than {max}: ask for less");
        Err(Failure::new(Reason::AnswerTooLarge, message))
    }
}
