//! Which group protocol a member speaks.
//!
//! Where it is to be found out, the brokers are asked for their settings: they tell whether they offer the new protocol
//! at all (from 4.0 on), and whether a group whose members still speak the classic one may go over while they live. A
//! member that spoke the new one in such a group, where it may not, would wait without a word until all others are gone.

use std::{collections::HashMap, time::Duration};

use futures::future::join_all;
use rdkafka::{
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::{Client, ClientContext},
    config::FromClientConfigAndContext,
    error::RDKafkaErrorCode,
};
use tokio::runtime;

use super::{
    client::{QuietContext, REQUEST_TIMEOUT, drop_aside, failed, refused_settings},
    options::{GroupProtocol, KafkaOptions},
};
use crate::log::LogError;

const PROTOCOLS: &str = "group.coordinator.rebalance.protocols";
const MIGRATION: &str = "group.consumer.migration.policy";
const SESSION_TIMEOUT: &str = "group.consumer.session.timeout.ms";
/// Brokers have it until 3.9. Some of those have an early form of the new protocol, which librdkafka does not speak.
const BEFORE_4: &str = "inter.broker.protocol.version";

/// What a member speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Classic,
    Consumer,
}

/// What the brokers say of the new protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    No,
    Yes {
        /// Whether a group may go over to it while members live that speak the classic one.
        while_members_live: bool,
        session_timeout: Option<Duration>,
    },
    /// They don't let us ask.
    Unknown,
}

/// What follows from it, and what is to be said about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Speak(Spoken),
    /// The new protocol, though nothing is assigned until all members that speak the classic one have left.
    WaitForOthers,
    /// The new protocol was demanded, and is not there.
    Impossible,
}

/// Chooses what a new member speaks. Blocks.
///
/// # Errors
/// [`LogError::Unavailable`] while the brokers don't answer; [`LogError::Unfit`] where the new protocol is demanded and
/// not offered.
pub(super) fn choose<C: ClientContext>(options: &KafkaOptions, client: &Client<C>) -> Result<Spoken, LogError> {
    if options.group_protocol == GroupProtocol::Classic {
        return Ok(Spoken::Classic);
    }
    let offer = ask(options, client)?;
    // Only asked for where it matters. Who is not allowed to ask stays with the others, if there are any.
    let have_classic = || has_classic_members(client, &options.group).unwrap_or(true);
    let choice = decide(options.group_protocol, offer, have_classic);
    tracing::info!(wanted = ?options.group_protocol, ?offer, ?choice, "the group protocol is chosen");
    match (choice, offer) {
        (Choice::Speak(Spoken::Classic), Offer::Unknown) => {
            tracing::info!(
                "whether the brokers offer the new group protocol is not known, since our Kafka user may not read their \
                 settings (DescribeConfigs on the cluster): the classic one is used; set kafka.group_protocol to \
                 `consumer` to use the new one all the same"
            );
        }
        (Choice::WaitForOthers, _) => {
            tracing::warn!(
                group = options.group,
                "members of the group speak the classic protocol, and the brokers let no group go over while it has \
                 members ({MIGRATION}): this one waits until all of those have left. `auto` would join them"
            );
        }
        (Choice::Speak(Spoken::Consumer), Offer::Yes { session_timeout: Some(theirs), .. })
            if theirs > options.session_timeout =>
        {
            tracing::warn!(
                "with the new group protocol the brokers say when a silent member is dead: after {theirs:?}, not after \
                 {:?} (kafka.session_timeout). So long the partitions of a replica that was killed stand still; lower \
                 {SESSION_TIMEOUT} there, and its lower bound, or set kafka.group_protocol to `classic`",
                options.session_timeout
            );
        }
        _ => {}
    }
    match choice {
        Choice::Speak(spoken) => Ok(spoken),
        Choice::WaitForOthers => Ok(Spoken::Consumer),
        Choice::Impossible => Err(LogError::Unfit(
            "kafka.group_protocol is `consumer`, and the brokers do not offer that protocol: it needs Kafka 4.0, with \
             `consumer` in group.coordinator.rebalance.protocols. Set it to `auto` or `classic`"
                .to_owned(),
        )),
    }
}

fn decide(wanted: GroupProtocol, offer: Offer, have_classic: impl Fn() -> bool) -> Choice {
    match (wanted, offer) {
        (GroupProtocol::Classic, _) | (GroupProtocol::Auto, Offer::No | Offer::Unknown) => {
            Choice::Speak(Spoken::Classic)
        }
        (GroupProtocol::Consumer, Offer::No) => Choice::Impossible,
        (GroupProtocol::Auto, Offer::Yes { while_members_live: false, .. }) if have_classic() => {
            Choice::Speak(Spoken::Classic)
        }
        (GroupProtocol::Consumer, Offer::Yes { while_members_live: false, .. }) if have_classic() => {
            Choice::WaitForOthers
        }
        (GroupProtocol::Auto, Offer::Yes { .. }) | (GroupProtocol::Consumer, Offer::Yes { .. } | Offer::Unknown) => {
            Choice::Speak(Spoken::Consumer)
        }
    }
}

/// Asks every broker: any of them may be, or become, the one that coordinates the group.
fn ask<C: ClientContext>(options: &KafkaOptions, client: &Client<C>) -> Result<Offer, LogError> {
    let what = "the brokers' settings";
    let metadata = client.fetch_metadata(None, REQUEST_TIMEOUT).map_err(|error| failed(what, &error))?;
    let brokers: Vec<_> = metadata.brokers().iter().map(|broker| ResourceSpecifier::Broker(broker.id())).collect();
    let admin =
        AdminClient::from_config_and_context(&options.admin(), QuietContext).map_err(|e| refused_settings(&e))?;
    let request = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
    // A member's thread is no runtime's.
    let runtime = runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| LogError::Unavailable(format!("{what} could not be asked for: {error}")))?;
    let questions = brokers.iter().map(|broker| admin.describe_configs([broker], &request));
    let answers = runtime.block_on(join_all(questions));
    drop_aside(admin);
    let (mut offers, mut silent) = (Vec::new(), None);
    for answer in answers {
        match answer.map(|mut resources| resources.pop()) {
            Ok(Some(Ok(settings))) => {
                let settings = settings.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
                offers.push(offer_of(&settings.collect()));
            }
            Ok(Some(Err(RDKafkaErrorCode::ClusterAuthorizationFailed))) => offers.push(Offer::Unknown),
            Ok(Some(Err(code))) => silent = Some(LogError::Unavailable(format!("{what}: {code}"))),
            Ok(None) => silent = Some(LogError::Unavailable(format!("{what}: no answer"))),
            Err(error) => silent = Some(failed(what, &error)),
        }
    }
    // A broker that is away does not keep the group from being joined.
    let none = || LogError::Unavailable(format!("{what}: there are no brokers"));
    offers.into_iter().reduce(Offer::and).ok_or_else(|| silent.unwrap_or_else(none))
}

impl Offer {
    /// What two brokers offer together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (
                Self::Yes { while_members_live: a, session_timeout: x },
                Self::Yes { while_members_live: b, session_timeout: y },
            ) => Self::Yes { while_members_live: a && b, session_timeout: x.max(y) },
        }
    }
}

fn offer_of(settings: &HashMap<String, String>) -> Offer {
    let text = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default().to_ascii_lowercase();
    if settings.contains_key(BEFORE_4) || !text(PROTOCOLS).split(',').any(|protocol| protocol.trim() == "consumer") {
        return Offer::No;
    }
    Offer::Yes {
        while_members_live: matches!(text(MIGRATION).as_str(), "bidirectional" | "upgrade"),
        session_timeout: text(SESSION_TIMEOUT).parse().ok().map(Duration::from_millis),
    }
}

/// Whether members live in the group that speak the classic protocol. Of others this question shows nothing.
fn has_classic_members<C: ClientContext>(client: &Client<C>, group: &str) -> Option<bool> {
    let groups = client.fetch_group_list(Some(group), REQUEST_TIMEOUT).ok()?;
    Some(groups.groups().iter().any(|found| found.name() == group && !found.members().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const YES: Offer = Offer::Yes { while_members_live: true, session_timeout: None };
    const ONLY_EMPTY: Offer = Offer::Yes { while_members_live: false, session_timeout: None };
    const CLASSIC: Choice = Choice::Speak(Spoken::Classic);
    const CONSUMER: Choice = Choice::Speak(Spoken::Consumer);

    #[test]
    fn the_new_protocol_is_spoken_where_it_is_offered_and_the_group_may_go_over_to_it() {
        use GroupProtocol::{Auto, Classic, Consumer};
        for (wanted, offer, have_classic, choice) in [
            (Auto, YES, true, CONSUMER),
            (Auto, YES, false, CONSUMER),
            (Auto, ONLY_EMPTY, true, CLASSIC),
            (Auto, ONLY_EMPTY, false, CONSUMER),
            (Auto, Offer::No, false, CLASSIC),
            (Auto, Offer::Unknown, false, CLASSIC),
            (Classic, YES, false, CLASSIC),
            (Consumer, YES, true, CONSUMER),
            (Consumer, ONLY_EMPTY, false, CONSUMER),
            (Consumer, ONLY_EMPTY, true, Choice::WaitForOthers),
            (Consumer, Offer::Unknown, true, CONSUMER),
            (Consumer, Offer::No, false, Choice::Impossible),
        ] {
            assert_eq!(decide(wanted, offer, || have_classic), choice, "{wanted:?} {offer:?} {have_classic}");
        }
    }

    fn settings(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn what_brokers_of_all_ages_offer_shows_in_their_settings() {
        assert_eq!(offer_of(&settings(&[])), Offer::No, "before 3.7");
        assert_eq!(offer_of(&settings(&[(PROTOCOLS, "classic")])), Offer::No);
        let preview = settings(&[(PROTOCOLS, "classic,consumer"), (BEFORE_4, "3.9-IV0")]);
        assert_eq!(offer_of(&preview), Offer::No, "an early form of it");
        let new = settings(&[
            (PROTOCOLS, "classic, consumer,streams"),
            (MIGRATION, "BIDIRECTIONAL"),
            (SESSION_TIMEOUT, "45000"),
        ]);
        let session_timeout = Some(Duration::from_secs(45));
        assert_eq!(offer_of(&new), Offer::Yes { while_members_live: true, session_timeout });
        for (policy, while_members_live) in [("upgrade", true), ("downgrade", false), ("disabled", false)] {
            let settings = settings(&[(PROTOCOLS, "consumer"), (MIGRATION, policy)]);
            assert_eq!(offer_of(&settings), Offer::Yes { while_members_live, session_timeout: None }, "{policy}");
        }
    }

    #[test]
    fn brokers_offer_what_each_of_them_does() {
        assert_eq!(YES.and(ONLY_EMPTY), ONLY_EMPTY);
        assert_eq!(YES.and(Offer::Unknown), Offer::Unknown);
        assert_eq!(Offer::Unknown.and(Offer::No), Offer::No);
        assert_eq!(YES.and(YES), YES);
    }
}
