//! Which requests took effect of late, so that a retry is known for one.

use std::time::Duration;

use model::{Epoch, Namespace, Request, RequestDigest, RequestId, Version};

use super::{Deadline, Expiring, Now, ShardState};
use crate::WriteOutcome;

/// How long a request is remembered.
#[derive(Debug, Clone, Copy)]
pub(in crate::memory) struct RequestTerms {
    pub(in crate::memory) window: Duration,
}

/// A request's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RequestKey {
    namespace: Namespace,
    id: RequestId,
}

/// A request that took effect.
#[derive(Debug, Clone)]
pub(super) struct StoredRequest {
    digest: RequestDigest,
    version: Version,
    epoch: Epoch,
    deadline: Deadline,
}

impl ShardState {
    /// What became of the request, if it took effect before or another one of the same id did.
    pub(super) fn answered(&self, now: Now, namespace: &Namespace, request: &Request) -> Option<WriteOutcome> {
        let key = RequestKey { namespace: namespace.clone(), id: request.id.clone() };
        let stored = self.stored_request(now, &key)?;
        if stored.digest == request.digest {
            Some(WriteOutcome::Repeated { version: stored.version, epoch: stored.epoch, current: self.epoch })
        } else {
            Some(WriteOutcome::Reused)
        }
    }

    /// Remembers a request, unless there is one of that id with a higher version.
    pub(super) fn put_request(
        &mut self,
        now: Now,
        namespace: &Namespace,
        request: &Request,
        version: Version,
        epoch: Epoch,
        terms: RequestTerms,
    ) {
        let key = RequestKey { namespace: namespace.clone(), id: request.id.clone() };
        if self.stored_request(now, &key).is_some_and(|stored| stored.version > version) {
            return;
        }
        self.forget_request(&key);
        let deadline = self.deadline(now.instant + terms.window);
        self.deadlines.insert(deadline, Expiring::Request(key.clone()));
        self.bytes += weight(namespace, request.id.as_str());
        self.requests.insert(key, StoredRequest { digest: request.digest, version, epoch, deadline });
    }

    pub(super) fn forget_request(&mut self, key: &RequestKey) {
        let Some(stored) = self.requests.remove(key) else { return };
        self.deadlines.remove(&stored.deadline);
        self.bytes -= weight(&key.namespace, key.id.as_str());
    }

    fn stored_request(&self, now: Now, key: &RequestKey) -> Option<&StoredRequest> {
        self.requests.get(key).filter(|stored| stored.deadline.0 > now.instant)
    }
}

/// The bytes that a request counts for.
pub(in crate::memory) fn weight(namespace: &Namespace, id: &str) -> u64 {
    // Digest, version, epoch.
    (namespace.as_str().len() + id.len() + RequestDigest::BYTES + 12) as u64
}
