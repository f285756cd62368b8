//! As what a member joins: the protocol that it speaks, its name, and the consumers that are made for it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
    mpsc::Sender,
};

use rdkafka::{config::FromClientConfigAndContext, consumer::BaseConsumer};

use super::{
    client::refused_settings,
    member::Signal,
    options::{GroupProtocol, KafkaOptions},
    protocol::Spoken,
    rebalance::MemberContext,
};
use crate::{ledger::ProgressLedger, log::LogError};

/// See the module.
pub(super) struct Membership {
    options: KafkaOptions,
    ledger: Arc<Mutex<ProgressLedger>>,
    signal: Sender<Signal>,
    closing: Arc<AtomicBool>,
    /// A consumer has signalled that its queue is no longer empty, and nobody has looked yet.
    ready: Arc<AtomicBool>,
    /// `None` until it was found out.
    spoken: Option<Spoken>,
}

/// What a consumer is made for until it is known what to speak; with most brokers it is the right one by and by.
const AT_FIRST: Spoken = Spoken::Consumer;

impl Membership {
    pub(super) fn new(
        options: &KafkaOptions,
        ledger: Arc<Mutex<ProgressLedger>>,
        signal: Sender<Signal>,
        closing: Arc<AtomicBool>,
    ) -> Self {
        Self { options: options.clone(), ledger, signal, closing, ready: Arc::default(), spoken: None }
    }

    pub(super) fn options(&self) -> &KafkaOptions {
        &self.options
    }

    /// A consumer that has not joined yet.
    pub(super) fn consumer(&self) -> Result<BaseConsumer<MemberContext>, LogError> {
        let context = MemberContext::new(Arc::clone(&self.ledger), Arc::clone(&self.closing));
        let config = self.options.member(self.spoken.unwrap_or(AT_FIRST));
        let mut consumer =
            BaseConsumer::from_config_and_context(&config, context).map_err(|error| refused_settings(&error))?;
        let (ready, signal) = (Arc::clone(&self.ready), self.signal.clone());
        consumer.set_nonempty_callback(move || {
            if !ready.swap(true, Ordering::AcqRel) {
                // A member that has ended needs no waking.
                let _ = signal.send(Signal::Ready);
            }
        });
        Ok(consumer)
    }

    /// The signal of the consumer has been heard: it may give another.
    pub(super) fn heard(&self) {
        self.ready.store(false, Ordering::Release);
    }

    pub(super) fn has_settled(&self) -> bool {
        self.spoken.is_some()
    }

    /// Settles what is spoken; says whether consumers made until now are of no use.
    pub(super) fn settle(&mut self, spoken: Spoken) -> bool {
        self.spoken = Some(spoken);
        spoken != AT_FIRST
    }

    /// The brokers do not take the new protocol after all: whether the classic one is to be tried, as it is from now on.
    pub(super) fn falls_back(&mut self) -> bool {
        let may = self.options.group_protocol == GroupProtocol::Auto && self.spoken == Some(Spoken::Consumer);
        if may {
            self.spoken = Some(Spoken::Classic);
        }
        may
    }

    fn name(&self) -> &str {
        self.options.group_instance_id.as_deref().unwrap_or_default()
    }

    /// What is said while it can't join.
    pub(super) fn name_is_taken(&self) -> String {
        format!(
            "another process is the group's member `{}`: either a predecessor of this one, which was killed and is taken \
             for alive until its session ends, or two replicas have the same kafka.group_instance_id; give each its own",
            self.name()
        )
    }

    /// What is said when its place is gone.
    pub(super) fn name_was_taken(&self) -> String {
        format!(
            "another process has taken this one's place in the group as `{}`: give each replica a kafka.group_instance_id \
             of its own, and start this one again if it is to go on",
            self.name()
        )
    }
}
