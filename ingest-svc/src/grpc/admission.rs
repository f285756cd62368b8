//! How many requests are worked on at once.
//!
//! Decided before a request is decoded, so that refusing is cheap when there is too much to do. The permit goes with
//! the request into the task that works on it, and is kept until the work has ended, also if the client has gone.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use proto::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};

use super::failure::Failure;

/// Kept as long as a request is worked on.
#[derive(Debug, Clone)]
pub(super) struct InFlight(#[allow(dead_code, reason = "kept for its drop")] Arc<OwnedSemaphorePermit>);

/// Lets requests in, so many at once: none before it is opened, and none after it is closed. A handle.
#[derive(Debug, Clone)]
pub struct Gate {
    permits: Arc<Semaphore>,
    open: Arc<AtomicBool>,
    max: u32,
}

impl Gate {
    /// A closed gate.
    pub fn new(max_in_flight: usize) -> Self {
        let max = u32::try_from(max_in_flight.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX >> 3);
        Self { permits: Arc::new(Semaphore::new(0)), open: Arc::new(AtomicBool::new(false)), max }
    }

    /// Lets requests in from now on.
    pub fn open(&self) {
        if !self.open.swap(true, Ordering::AcqRel) {
            self.permits.add_permits(self.max as usize);
        }
    }

    /// Lets no more requests in, and waits until those that are in have been worked off.
    pub async fn close(&self) {
        if self.open.swap(false, Ordering::AcqRel)
            && let Ok(all) = self.permits.acquire_many(self.max).await
        {
            all.forget();
        }
    }

    /// Waits until there is room for one more; `None` if the gate is closed.
    pub(super) async fn wait(&self) -> Option<InFlight> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        self.open.load(Ordering::Acquire).then(|| InFlight(Arc::new(permit)))
    }

    fn enter(&self) -> Result<InFlight, Failure> {
        match self.permits.clone().try_acquire_owned() {
            Ok(permit) => Ok(InFlight(Arc::new(permit))),
            Err(_) if self.open.load(Ordering::Acquire) => {
                let message = "the server is working on as many requests as it takes: try again";
                Err(Failure::new(Reason::Overloaded, message))
            }
            Err(_) => {
                let message = "the server is starting or being stopped: try again, or another replica";
                Err(Failure::new(Reason::NotServing, message))
            }
        }
    }
}

/// A service behind a gate.
#[derive(Debug, Clone)]
pub(super) struct Admission<S> {
    service: S,
    gate: Gate,
}

impl<S> Admission<S> {
    pub(super) fn new(service: S, gate: Gate) -> Self {
        Self { service, gate }
    }
}

impl<S: NamedService> NamedService for Admission<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Admission<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.gate.enter() {
            Ok(permit) => {
                request.extensions_mut().insert(permit);
                let answer = self.service.call(request);
                Box::pin(async { Ok(with_reason(answer.await?)) })
            }
            Err(refusal) => Box::pin(async { Ok(refusal.into_status().into_http()) }),
        }
    }
}

/// The answer; an error that tonic made itself, before our code was reached, gets a reason like all others.
fn with_reason(answer: http::Response<Body>) -> http::Response<Body> {
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() != Code::Ok && status.details().is_empty() => {
            Failure::of_transport(&status).into_status().into_http()
        }
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(gate: &Gate) -> Option<Reason> {
        gate.enter().err().map(|failure| failure.reason())
    }

    #[tokio::test]
    async fn a_gate_says_why_it_lets_nobody_in_and_closes_behind_the_last() {
        let gate = Gate::new(2);
        assert_eq!(refused(&gate), Some(Reason::NotServing));
        gate.open();
        gate.open();
        let (first, second) = (gate.enter(), gate.enter());
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(refused(&gate), Some(Reason::Overloaded));
        drop(first);
        assert_eq!(refused(&gate), None);

        let closing = gate.close();
        tokio::pin!(closing);
        assert!(futures::poll!(&mut closing).is_pending(), "the second one is still in");
        assert_eq!(refused(&gate), Some(Reason::NotServing));
        drop(second);
        closing.await;
        assert_eq!(refused(&gate), Some(Reason::NotServing));
    }

    #[tokio::test]
    async fn who_waits_gets_in_behind_another_and_not_after_the_end() {
        let gate = Gate::new(1);
        gate.open();
        let (first, second) = (gate.enter(), gate.wait());
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        let (second, third) = (second.await, gate.wait());
        assert!(second.is_some());
        tokio::pin!(third);
        assert!(futures::poll!(&mut third).is_pending());
        let closing = gate.close();
        tokio::pin!(closing);
        assert!(futures::poll!(&mut closing).is_pending());
        drop(second);
        assert!(third.await.is_none());
        closing.await;
    }

    #[tokio::test]
    async fn a_gate_that_was_never_opened_is_closed_at_once() {
        Gate::new(2).close().await;
    }
}
