//! A producer and the thread that takes its answers.
//!
//! The client library's own (`ThreadedProducer`) polls for 100 ms at a time, and spins for what is left of the last
//! millisecond of each: 4 % of a core of a process that has nothing to do. This one does so once a second.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext as _,
    producer::{BaseProducer, ProducerContext},
};

use super::client::refused_settings;
use crate::log::LogError;

/// So long an end may wait; answers are taken as they come.
const POLL: Duration = Duration::from_secs(1);

/// See the module. Its drop waits for the thread.
pub(super) struct PolledProducer<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<C: ProducerContext + 'static> PolledProducer<C> {
    /// # Errors
    /// If the library refuses the settings, or there is no thread to be had.
    pub(super) fn new(config: &ClientConfig, context: C) -> Result<Self, LogError> {
        let producer = BaseProducer::from_config_and_context(config, context).map_err(|e| refused_settings(&e))?;
        let (producer, ends) = (Arc::new(producer), Arc::new(AtomicBool::new(false)));
        let polling = {
            let (producer, ends) = (Arc::clone(&producer), Arc::clone(&ends));
            move || {
                while !ends.load(Ordering::Acquire) {
                    producer.poll(POLL);
                }
            }
        };
        let thread = thread::Builder::new().name("kafka-producer".into()).spawn(polling);
        let thread = thread.map_err(|error| LogError::Unavailable(format!("no thread for the producer: {error}")))?;
        Ok(Self { producer, ends, thread: Some(thread) })
    }
}

impl<C: ProducerContext + 'static> Deref for PolledProducer<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl<C: ProducerContext + 'static> Drop for PolledProducer<C> {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that takes the Kafka producer's answers had panicked");
        }
    }
}
