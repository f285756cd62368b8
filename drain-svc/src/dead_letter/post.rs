//! The log as the dead letters see it, whichever it is.

use std::{future::Future, pin::Pin};

use event_log::{EventPublisher, LogError, LogSettings, Outgoing, PublishError};
use model::Topic;

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Makes topics and appends to them; see [`EventPublisher`].
pub(crate) trait Post: Send + Sync {
    fn ensure_topic<'a>(
        &'a self,
        topic: &'a Topic,
        partitions: u16,
        settings: LogSettings,
    ) -> Answer<'a, Result<(), LogError>>;

    fn publish(&self, records: Vec<Outgoing>) -> Answer<'_, Vec<Result<i64, PublishError>>>;
}

impl<P: EventPublisher> Post for P {
    fn ensure_topic<'a>(
        &'a self,
        topic: &'a Topic,
        partitions: u16,
        settings: LogSettings,
    ) -> Answer<'a, Result<(), LogError>> {
        Box::pin(EventPublisher::ensure_topic(self, topic, partitions, settings))
    }

    fn publish(&self, records: Vec<Outgoing>) -> Answer<'_, Vec<Result<i64, PublishError>>> {
        Box::pin(EventPublisher::publish(self, records))
    }
}
