//! Streams of writes: several in flight, results in the order of the stream, and another stream behind one that broke off.

use std::{future::ready, pin::pin, time::Duration};

use futures::{StreamExt as _, stream};
use history::{BatchPlace, Outcome, Refusal, Span};
use ingest_svc::accept::{Acknowledge, Arrival, StreamEnd, StreamOptions, StreamResult};
use model::RequestId;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Client, PATIENCE,
    attempt::Attempted,
    writes::{ATTEMPTS, PAUSE},
};

/// Writes of a stream, at most.
const WRITES: u64 = 8;
/// Between two of them, at most.
const BETWEEN: Duration = Duration::from_millis(12);
/// What each is taken to weigh.
const BYTES: usize = 100;
/// A stream on which nothing moves for so long: longer than clients wait.
const IDLE: Duration = Duration::from_secs(30);
/// When a client hangs up, or a replica is stopped, if it does: so long after the stream began, at most.
const BREAK: Duration = Duration::from_millis(300);

/// A write of a stream.
struct Sent {
    write: Attempted,
    /// From when it was sent first to when it was answered last, if it was sent.
    span: Option<Span>,
    /// What became of it when it was sent last.
    last: Option<Outcome>,
}

/// A write's place among those of the stream, and when it was sent.
type About = (usize, u64);

impl Sent {
    fn note(&mut self, client: &Client, from: u64, outcome: Outcome) {
        client.note(&mut self.write, outcome);
        self.last = Some(outcome);
        let from = self.span.map_or(from, |span| span.from);
        self.span = Some(Span::new(from, client.world.tick()));
    }

    /// Whether it is worth while to send it again, and safe: a `later` one of its record that took effect, or may have,
    /// must not be followed by it.
    fn is_open<'a>(&self, mut later: impl Iterator<Item = &'a Self>) -> bool {
        let may_be_done = |sent: &Self| matches!(sent.write.outcome, Some(Outcome::Acked { .. } | Outcome::Unknown));
        match self.last {
            None | Some(Outcome::Unknown | Outcome::Refused(Refusal::Other)) => !later.any(may_be_done),
            Some(_) => false,
        }
    }
}

impl Client {
    /// Sends writes as a stream. What one leaves open goes into another, in the same order and under the same request
    /// ids, as far as its place in the order of its record's writes is what it was then.
    pub(super) async fn stream(&mut self) {
        let nature = self.world.nature.clone();
        let named = nature.happens(0.8);
        let count = nature.pick(3..WRITES + 1);
        let number = self.world.number();
        let id = |n: u64| RequestId::new(&format!("stream-{number}-{n}")).ok().filter(|_| named);
        let mut writes: Vec<Sent> = Vec::new();
        for n in 0..count {
            let mut write = self.any_write();
            write.request.request_id = id(n);
            writes.push(Sent { write, span: None, last: None });
        }
        let ack = self.any_acknowledgement();
        for attempt in 0..if named { ATTEMPTS } else { 1 } {
            let is_open = |n: &usize| {
                let later = writes[n + 1..].iter().filter(|later| later.write.at == writes[*n].write.at);
                writes[*n].is_open(later)
            };
            let open: Vec<usize> = (0..writes.len()).filter(is_open).collect();
            if open.is_empty() || (attempt > 0 && nature.happens(0.1)) {
                break;
            }
            if attempt > 0 {
                sleep(nature.up_to(PAUSE)).await;
            }
            self.send(&mut writes, &open, ack).await;
        }
        for (index, sent) in writes.iter().enumerate() {
            let write = &sent.write;
            let outcome = write.outcome.unwrap_or(Outcome::Unknown);
            // One of unknown outcome that was given up may come at any time, where later ones were sent again.
            let is_again = |later: &Sent| later.write.at == write.at && later.write.attempts > 1;
            let has_place = outcome != Outcome::Unknown || !writes[index..].iter().any(is_again);
            let place = has_place.then_some(BatchPlace { batch: number, index: index as u32 });
            if let Outcome::Acked { stamp, .. } = outcome {
                self.etags.insert(write.at, stamp);
                self.world.is_made_up(write.at);
            }
            if let Some(span) = sent.span {
                self.record_in(span, write.at, write.action, place, write.as_first_done(outcome));
            }
        }
    }

    /// One stream, of these writes.
    async fn send(&self, writes: &mut [Sent], open: &[usize], ack: Acknowledge) {
        let nature = &self.world.nature;
        let replica = self.world.ready_replica().await;
        let (writer, stopping) = (replica.writer(), CancellationToken::new());
        let options = StreamOptions {
            max_items: nature.pick(1..7) as usize,
            max_bytes: if nature.happens(0.2) { BYTES * 2 } else { 1 << 20 },
            idle: IDLE,
        };
        let soon = |chance| if nature.happens(chance) { nature.up_to(BREAK) } else { PATIENCE * 2 };
        let (hangs_up, stops) = (Instant::now() + soon(0.15), Instant::now() + soon(0.1));
        let from = self.world.tick();
        let sends: Vec<_> = open.iter().map(|&n| (n, writes[n].write.request.clone())).collect();
        let mut arrivals = pin!(stream::iter(sends).then(async |(n, request)| {
            sleep(nature.up_to(BETWEEN)).await;
            Arrival { about: (n, self.world.tick()), write: Some(request), bytes: BYTES, asked: Instant::now() }
        }));
        let (tell, mut told) = mpsc::channel(1);
        let mut answered = open.iter();
        let mut take = |results: Vec<StreamResult<About>>| {
            for ((n, from), result) in results {
                if answered.next() != Some(&n) {
                    self.world.complain(format!("a stream of {open:?} was answered out of order, {n} too early"));
                }
                let Some(answer) = result else { continue };
                let outcome = self.outcome(&writes[n].write, answer);
                writes[n].note(self, from, outcome);
            }
        };
        let end = {
            let enter = || ready(Some(()));
            let mut streaming = pin!(writer.stream(ack, options, arrivals.as_mut(), tell, enter, &stopping));
            loop {
                tokio::select! {
                    biased;
                    () = replica.process.died() => break None,
                    Some(results) = told.recv() => take(results),
                    end = &mut streaming => break Some(end),
                    () = sleep_until(hangs_up) => break None,
                    () = sleep_until(stops), if !stopping.is_cancelled() => stopping.cancel(),
                }
            }
        };
        if end.is_some() {
            while let Ok(results) = told.try_recv() {
                take(results);
            }
        }
        let left = answered.as_slice();
        nature.note(|| format!("CLIENT {}: a stream of {open:?} has ended: {end:?}, without {left:?}", self.number));
        // What has no result when the server ends a stream was not touched.
        let outcome = if end.is_some() { Outcome::Refused(Refusal::Other) } else { Outcome::Unknown };
        for &n in left {
            writes[n].note(self, from, outcome);
        }
        match end {
            Some(StreamEnd::Finished) if !left.is_empty() => {
                self.world.complain(format!("a stream of {open:?} was finished, and {left:?} have no result"));
            }
            Some(end @ (StreamEnd::Gone | StreamEnd::Idle | StreamEnd::Untaken)) => {
                self.world.complain(format!("a stream of {open:?} was ended, since {end}"));
            }
            Some(StreamEnd::Finished | StreamEnd::Stopping | StreamEnd::Unknown) | None => {}
        }
    }
}
