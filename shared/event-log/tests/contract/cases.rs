//! The tests that every backend runs.

use std::time::Duration;

use event_log::{Committed, EventPublisher, EventSource, LogError, LogReader, Progress, PublishError};

use crate::harness::{
    Backend, Observed, REQUEST_WINDOW, SETTINGS, at, both_until, drained, fill, outgoing, progress, publish, read,
    read_all, text, within,
};

pub(crate) use crate::following::{
    who_follows_gets_what_is_there_and_what_comes_in_order_and_nothing_twice,
    whoever_follows_from_where_the_log_is_not_is_told,
};

pub(crate) async fn what_was_published_is_read_back_in_order_per_partition<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 3, SETTINGS).await.unwrap();
    let records = (0..300).map(|n| outgoing(&topic, (n % 3) as u16, &format!("{n}"))).collect();
    let offsets = publish(log, records).await;
    for partition in 0..3u16 {
        let of_it: Vec<i64> = offsets.iter().copied().skip(usize::from(partition)).step_by(3).collect();
        assert_eq!(of_it, (0..100).collect::<Vec<i64>>(), "offsets are contiguous and in the order of the call");
        let read = read_all(log, &at(&topic, partition)).await;
        let texts: Vec<String> = read.iter().map(text).collect();
        assert_eq!(texts, (0..100).map(|n| format!("{}", n * 3 + partition)).collect::<Vec<_>>());
        assert_eq!(&read[0].key[..], format!("key of {partition}").as_bytes());
        assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), (0..100).collect::<Vec<i64>>());
    }
}

pub(crate) async fn publishers_at_once_lose_and_mix_up_nothing<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    let mut tasks = Vec::new();
    for publisher in 0..8 {
        let (log, topic) = (log.clone(), topic.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0..20 {
                let text = format!("{publisher}:{n}");
                publish(&log, vec![outgoing(&topic, (publisher % 2) as u16, &text)]).await;
            }
        }));
    }
    for task in tasks {
        within("a publisher", task).await.unwrap();
    }
    for partition in 0..2u16 {
        let texts: Vec<String> = read_all(log, &at(&topic, partition)).await.iter().map(text).collect();
        assert_eq!(texts.len(), 80);
        for publisher in (0..8).filter(|p| p % 2 == i32::from(partition)) {
            let own: Vec<_> = texts.iter().filter(|t| t.starts_with(&format!("{publisher}:"))).collect();
            assert_eq!(own, (0..20).map(|n| format!("{publisher}:{n}")).collect::<Vec<_>>().iter().collect::<Vec<_>>());
        }
    }
}

pub(crate) async fn bounds_and_ranges_are_exact<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 4, SETTINGS).await.unwrap();
    assert_eq!(log.bounds(&[]).await, Ok(vec![]));
    assert_eq!(log.bounds(&[at(&topic, 0), at(&topic, 3)]).await, Ok(vec![(0, 0), (0, 0)]));
    fill(log, &topic, 3, 0..7).await;
    assert_eq!(log.bounds(&[at(&topic, 3), at(&topic, 0)]).await, Ok(vec![(0, 7), (0, 0)]));

    let offsets = |records: Vec<event_log::LogRecord>| records.iter().map(|r| r.offset).collect::<Vec<_>>();
    assert_eq!(offsets(read(log, &at(&topic, 3), 2, 5).await), [2, 3, 4]);
    assert_eq!(offsets(read(log, &at(&topic, 3), 5, 7).await), [5, 6]);
    assert_eq!(offsets(read(log, &at(&topic, 3), 0, 1).await), [0], "read again, from before");
    assert_eq!(offsets(read(log, &at(&topic, 3), 7, 7).await), [0i64; 0]);
    assert_eq!(offsets(read(log, &at(&topic, 0), 0, 0).await), [0i64; 0]);

    let mut seen = 0;
    let mut each = |_| {
        seen += 1;
        seen < 3
    };
    within("a reading that is broken off", log.read(&at(&topic, 3), 0, 7, &mut each)).await.unwrap();
    assert_eq!(seen, 3);
    let mut nothing = |_| true;
    let beyond = within("a reading beyond the end", log.read(&at(&topic, 3), 5, 9, &mut nothing)).await;
    assert!(matches!(beyond, Err(LogError::Unavailable(_))), "{beyond:?}");
}

pub(crate) async fn many_records_are_read_in_full<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    for batch in 0..5 {
        fill(log, &topic, 0, batch * 1000..(batch + 1) * 1000).await;
    }
    let texts: Vec<String> = read(log, &at(&topic, 0), 0, 5000).await.iter().map(text).collect();
    assert_eq!(texts, (0..5000).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn a_topic_is_made_once_and_its_partitions_are_checked<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 4, SETTINGS).await.unwrap();
    fill(log, &topic, 2, 0..3).await;
    log.ensure_topic(&topic, 4, SETTINGS).await.unwrap();
    assert_eq!(log.bounds(&[at(&topic, 2)]).await, Ok(vec![(0, 3)]));
    let other = log.ensure_topic(&topic, 5, SETTINGS).await;
    let Err(LogError::Unfit(message)) = other else { panic!("another number of partitions: {other:?}") };
    assert!(message.contains(topic.as_str()) && message.contains('4') && message.contains('5'), "{message}");
}

pub(crate) async fn a_topic_that_is_not_there_is_named<B: Backend>() {
    let backend = B::start().await;
    let (log, there, missing) = (backend.log(), backend.topic("orders"), backend.topic("missing"));
    log.ensure_topic(&there, 1, SETTINGS).await.unwrap();
    let bounds = log.bounds(&[at(&there, 0), at(&missing, 0)]).await;
    assert_eq!(bounds, Err(LogError::NoSuchTopic(missing.clone())));
    let mut source = backend.join();
    assert_eq!(source.subscribe(std::slice::from_ref(&missing)).await, Err(LogError::NoSuchTopic(missing)));
}

pub(crate) async fn a_record_that_is_too_large_is_refused_alone<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    let largest = "x".repeat(log.max_payload_bytes());
    let too_large = "x".repeat(log.max_payload_bytes() + 10_000);
    let records = vec![outgoing(&topic, 0, "a"), outgoing(&topic, 0, &too_large), outgoing(&topic, 0, "b")];
    let answers = within("publishing", log.publish(records)).await;
    assert_eq!(answers[0], Ok(0));
    assert!(matches!(answers[1], Err(PublishError::TooLarge { bytes }) if bytes > too_large.len()), "{:?}", answers[1]);
    assert_eq!(answers[2], Ok(1));
    let mut largest_record = outgoing(&topic, 0, &largest);
    largest_record.key = vec![b'k'; model::MAX_KEY_BYTES].into();
    publish(log, vec![largest_record]).await;
    let read = read_all(log, &at(&topic, 0)).await;
    assert_eq!(read.len(), 3);
    assert_eq!(read[2].payload.len(), largest.len());
    assert!(log.is_available(), "a bad record says nothing about the log");
}

pub(crate) async fn the_dead_letter_of_the_largest_event_is_taken_and_read_like_any_record<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    let letters = topic.dead_letters().unwrap();
    log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    log.ensure_topic(&letters, 2, SETTINGS).await.unwrap();
    let of_size = |topic, bytes: usize| {
        let mut record = outgoing(topic, 1, &"x".repeat(bytes));
        record.key = vec![b'k'; model::MAX_KEY_BYTES].into();
        record
    };
    let largest = log.max_payload_bytes() + model::DeadLetter::MAX_OVERHEAD_BYTES;
    let records = vec![of_size(&letters, largest), outgoing(&letters, 1, "b"), of_size(&topic, largest)];
    let answers = within("publishing", log.publish(records)).await;
    assert_eq!(answers[..2], [Ok(0), Ok(1)]);
    assert!(matches!(answers[2], Err(PublishError::TooLarge { .. })), "{:?}", answers[2]);
    assert_eq!(log.bounds(&[at(&letters, 0), at(&letters, 1)]).await, Ok(vec![(0, 0), (0, 2)]));
    let read = read_all(log, &at(&letters, 1)).await;
    assert_eq!(read.iter().map(|record| record.payload.len()).collect::<Vec<_>>(), [largest, 1]);
}

pub(crate) async fn a_member_gets_every_partition_and_every_record_from_the_beginning<B: Backend>() {
    let backend = B::start().await;
    let (log, topic, other) = (backend.log(), backend.topic("orders"), backend.topic("payments"));
    log.ensure_topic(&topic, 4, SETTINGS).await.unwrap();
    log.ensure_topic(&other, 2, SETTINGS).await.unwrap();
    fill(log, &topic, 1, 0..50).await;
    let mut member = Observed::subscribed(backend.join(), &[topic.clone(), other.clone()]).await;
    member.until("all partitions", |m| m.owned.len() == 6).await;
    assert!(member.last_assigned.iter().all(|assignment| assignment.committed.is_none()));
    member.until("what was there before", |m| m.delivered() == 50).await;
    fill(log, &other, 1, 0..5).await;
    fill(log, &topic, 1, 50..1200).await;
    member.until("what came since", |m| m.delivered() == 1205).await;
    assert_eq!(member.delivered_of(&at(&topic, 1)), (0..1200).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(member.delivered_of(&at(&other, 1)).len(), 5);

    within("subscribing to less", member.source.subscribe(std::slice::from_ref(&other))).await.unwrap();
    member.until("the other topic only", |m| m.owned.len() == 2).await;
    assert!(member.owned.keys().all(|partition| partition.topic == other));
}

pub(crate) async fn progress_is_committed_with_its_epoch_and_is_where_the_next_member_starts<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    fill(log, &topic, 0, 0..10).await;
    assert_eq!(drained(log, &[at(&topic, 0), at(&topic, 1)]).await, [None, None]);
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 10).await;
    member.source.note_progress(&[(at(&topic, 0), progress(7, 3))]);
    member.source.note_progress(&[(at(&topic, 0), progress(4, 2))]);
    within("closing", member.source.close(Duration::from_secs(60))).await.unwrap();
    assert_eq!(drained(log, &[at(&topic, 1), at(&topic, 0)]).await, [None, Some(progress(7, 3))]);

    let mut next = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    next.until("the rest", |m| m.delivered() == 3).await;
    let assignment = next.last_assigned.iter().find(|a| a.partition == at(&topic, 0)).unwrap();
    assert_eq!(assignment.committed, Some(progress(7, 3)));
    assert_eq!(next.delivered_of(&at(&topic, 0)), ["7", "8", "9"]);
}

pub(crate) async fn progress_is_committed_on_a_timer<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    fill(log, &topic, 0, 0..5).await;
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 5).await;
    member.note_all(1);
    let noted = tokio::time::Instant::now();
    while drained(log, &[at(&topic, 0)]).await != [Some(progress(5, 1))] {
        assert!(noted.elapsed() < crate::harness::PATIENCE, "never committed");
        member.linger(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn members_share_the_partitions_and_inherit_them_from_the_committed_offset<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 6, SETTINGS).await.unwrap();
    for partition in 0..6 {
        fill(log, &topic, partition, 0..20).await;
    }
    let mut a = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    a.until("everything while alone", |a| a.delivered() == 120).await;
    // Done up to 8 in every partition, in epoch 2; the rest was only seen.
    let done: Vec<_> = (0..6).map(|partition| (at(&topic, partition), progress(8, 2))).collect();
    a.source.note_progress(&done);

    let mut b = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    both_until("half for each", &mut a, &mut b, |a, b| a.owned.len() == 3 && b.owned.len() == 3).await;
    assert!(a.owned.keys().all(|partition| !b.owned.contains_key(partition)), "nobody shares a partition");
    // What was noted was committed before the partitions were given up.
    assert!(
        b.last_assigned.iter().all(|assignment| assignment.committed == Some(progress(8, 2))),
        "{:?}",
        b.last_assigned
    );
    both_until("the redelivery", &mut a, &mut b, |_, b| b.delivered() == 36).await;
    for seen in b.owned.values() {
        assert_eq!(seen[0].offset, 8, "from the committed offset");
    }

    // A leaves with more done; B inherits from there.
    let inherited: Vec<_> = a.owned.keys().cloned().collect();
    let done: Vec<_> = inherited.iter().map(|partition| (partition.clone(), progress(15, 4))).collect();
    a.source.note_progress(&done);
    within("closing", a.source.close(Duration::from_secs(60))).await.unwrap();
    b.until("everything", |b| b.owned.len() == 6).await;
    assert!(b.last_assigned.iter().all(|assignment| assignment.committed == Some(progress(15, 4))));
    b.until("the redelivery", |b| b.delivered() == 36 + 15).await;
    for partition in inherited {
        assert_eq!(b.delivered_of(&partition), (15..20).map(|n| n.to_string()).collect::<Vec<_>>());
    }
    for partition in 0..6 {
        fill(log, &topic, partition, 20..25).await;
    }
    b.until("what came since", |b| b.delivered() == 36 + 15 + 30).await;
}

pub(crate) async fn a_paused_partition_is_silent_and_loses_nothing<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    let (paused, running) = (at(&topic, 0), at(&topic, 1));
    fill(log, &topic, 0, 0..2000).await;
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    // Some of it is out, the rest was fetched ahead.
    member.until("a first delivery", |m| m.delivered() > 0).await;
    member.source.pause(std::slice::from_ref(&paused)).unwrap();
    // What was on its way may come.
    member.linger(Duration::from_millis(500)).await;
    let on_pause = member.delivered_of(&paused).len();
    fill(log, &topic, 0, 2000..2500).await;
    fill(log, &topic, 1, 0..100).await;
    member.until("the other partition", |m| m.delivered_of(&at(&topic, 1)).len() == 100).await;
    member.linger(Duration::from_millis(300)).await;
    assert_eq!(member.delivered_of(&paused).len(), on_pause, "silent while paused");
    member.source.resume(std::slice::from_ref(&paused)).unwrap();
    member.until("all of it", |m| m.delivered_of(&at(&topic, 0)).len() == 2500).await;
    assert_eq!(member.delivered_of(&paused), (0..2500).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(member.delivered_of(&running).len(), 100);
}

pub(crate) async fn a_partition_paused_before_its_first_record_loses_nothing<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("the partition", |m| m.owned.len() == 1).await;
    for round in 0..5 {
        member.source.pause(&[at(&topic, 0)]).unwrap();
        fill(log, &topic, 0, round * 10..(round + 1) * 10).await;
        member.linger(Duration::from_millis(50)).await;
        member.source.resume(&[at(&topic, 0)]).unwrap();
    }
    member.until("all of it", |m| m.delivered() == 50).await;
    assert_eq!(member.delivered_of(&at(&topic, 0)), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub(crate) async fn progress_of_partitions_that_went_away_is_not_committed<B: Backend>() {
    let backend = B::start().await;
    let (log, topic, other) = (backend.log(), backend.topic("orders"), backend.topic("payments"));
    log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    log.ensure_topic(&other, 1, SETTINGS).await.unwrap();
    fill(log, &topic, 0, 0..10).await;
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 10).await;
    member.source.note_progress(&[(at(&topic, 0), progress(4, 1))]);
    within("subscribing to another", member.source.subscribe(std::slice::from_ref(&other))).await.unwrap();
    member.until("the other topic only", |m| m.owned.len() == 1 && m.owned.contains_key(&at(&other, 0))).await;
    // Too late: it may belong to somebody else by now.
    member.source.note_progress(&[(at(&topic, 0), progress(9, 1))]);
    within("closing", member.source.close(Duration::from_secs(60))).await.unwrap();
    assert_eq!(drained(log, &[at(&topic, 0)]).await, [Some(progress(4, 1))]);
}

/// The backends of these tests have a window of [`REQUEST_WINDOW`].
pub(crate) async fn the_window_follows_what_was_committed_a_window_ago_and_is_inherited<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    fill(log, &topic, 0, 0..30).await;
    let partition = at(&topic, 0);
    let committed = async || log.committed(std::slice::from_ref(&partition)).await.unwrap()[0];
    let mut member = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    member.until("all records", |m| m.delivered() == 30).await;

    let noted = tokio::time::Instant::now();
    member.source.note_progress(&[(partition.clone(), progress(10, 1))]);
    let patience = noted + crate::harness::PATIENCE;
    let mut further = false;
    loop {
        assert!(tokio::time::Instant::now() < patience, "the window stands still: {:?}", committed().await);
        member.linger(Duration::from_millis(100)).await;
        let Some(Committed { done, window }) = committed().await else { continue };
        assert!(window.offset <= done.offset);
        assert!(log.bounds(std::slice::from_ref(&partition)).await.unwrap()[0].0 <= window.offset, "what is kept");
        if !further && done.offset == 10 {
            assert_eq!(window, Progress::BEGINNING, "nothing is known to be old enough");
            // What is drained can be read as long as the window has not passed it.
            assert_eq!(read(log, &partition, 0, 30).await.len(), 30);
            further = true;
            member.source.note_progress(&[(partition.clone(), progress(20, 2))]);
        }
        if window.offset > 0 {
            assert!(noted.elapsed() >= REQUEST_WINDOW, "{window:?} after {:?}", noted.elapsed());
        }
        // Though nothing more was noted.
        if window == progress(20, 2) {
            break;
        }
    }
    member.source.note_progress(&[(partition.clone(), progress(24, 3))]);
    within("closing", member.source.close(Duration::from_secs(60))).await.unwrap();
    assert_eq!(committed().await, Some(Committed { done: progress(24, 3), window: progress(20, 2) }));

    let mut heir = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    heir.until("the rest", |m| m.delivered() == 6).await;
    heir.source.note_progress(&[(partition.clone(), progress(26, 3))]);
    within("closing", heir.source.close(Duration::from_secs(60))).await.unwrap();
    assert_eq!(committed().await, Some(Committed { done: progress(26, 3), window: progress(20, 2) }));
}

/// The timer commits once a second; what was noted since then must be committed when partitions are given up.
pub(crate) async fn progress_is_committed_up_to_the_moment_of_giving_up<B: Backend>() {
    /// Notes may be under way while the partitions go.
    const SLACK: Duration = Duration::from_millis(500);
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    for partition in 0..2 {
        fill(log, &topic, partition, 0..3000).await;
    }
    let mut a = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    a.until("both partitions", |a| a.owned.len() == 2).await;
    let mut done = 0;
    for round in 0..3 {
        // Another phase of the timer each time.
        let b_comes = tokio::time::Instant::now() + Duration::from_millis(100 + round * 350);
        let mut b = None;
        let mut noted = Vec::new();
        let partitions = [at(&topic, 0), at(&topic, 1)];
        within("giving up a partition", async {
            while a.owned.len() == 2 {
                done += 1;
                a.source.note_progress(&partitions.clone().map(|partition| (partition, progress(done, 1))));
                noted.push((done, tokio::time::Instant::now()));
                if b.is_none() && tokio::time::Instant::now() >= b_comes {
                    b = Some(Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await);
                }
                match &mut b {
                    None => a.linger(Duration::from_millis(10)).await,
                    Some(b) => {
                        tokio::select! {
                            () = a.linger(Duration::from_millis(10)) => {}
                            () = b.linger(Duration::from_secs(60)) => {}
                        }
                    }
                }
            }
        })
        .await;
        let gone = tokio::time::Instant::now();
        let mut b = b.expect("nothing is given up before another member comes");
        both_until("one for each", &mut a, &mut b, |a, b| a.owned.len() == 1 && b.owned.len() == 1).await;
        let committed = b.last_assigned[0].committed.map_or(0, |progress| progress.offset);
        if let Some((_, left_out)) = noted.iter().find(|(offset, _)| *offset > committed) {
            assert!(gone - *left_out < SLACK, "noted {:?} before it was given up, not committed", gone - *left_out);
        }
        b.source.close(Duration::from_secs(60)).await.unwrap();
        a.until("both partitions again", |a| a.owned.len() == 2).await;
    }
}

pub(crate) async fn a_member_that_is_dropped_is_replaced<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 2, SETTINGS).await.unwrap();
    fill(log, &topic, 0, 0..10).await;
    let mut a = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    a.until("all records", |m| m.delivered() == 10).await;
    drop(a);
    let mut b = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    b.until("all records again", |b| b.delivered() == 10).await;
    assert_eq!(b.delivered_of(&at(&topic, 0)).len(), 10);
}

pub(crate) async fn a_call_of_next_that_is_given_up_loses_nothing<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 3, SETTINGS).await.unwrap();
    let mut a = Observed::subscribed(backend.join(), std::slice::from_ref(&topic)).await;
    a.until("all partitions", |a| a.owned.len() == 3).await;
    let publisher = {
        let (log, topic) = (log.clone(), topic.clone());
        tokio::spawn(async move {
            for n in 0..150usize {
                fill(&log, &topic, (n % 3) as u16, n..n + 1).await;
            }
        })
    };
    let deadline = tokio::time::Instant::now() + crate::harness::PATIENCE;
    while a.delivered() < 150 {
        assert!(tokio::time::Instant::now() < deadline, "only {} came", a.delivered());
        a.linger(Duration::from_micros(700)).await;
        a.note_all(1);
    }
    publisher.await.unwrap();
    within("closing", a.source.close(Duration::from_secs(60))).await.unwrap();
    let committed = drained(log, &[at(&topic, 0), at(&topic, 1), at(&topic, 2)]).await;
    assert_eq!(committed, [Some(progress(50, 1)); 3]);
}

pub(crate) async fn flush_waits_for_what_was_handed_over<B: Backend>() {
    let backend = B::start().await;
    let (log, topic) = (backend.log(), backend.topic("orders"));
    log.ensure_topic(&topic, 1, SETTINGS).await.unwrap();
    let publishing = {
        let records = (0..500).map(|n| outgoing(&topic, 0, &n.to_string())).collect();
        let log = log.clone();
        tokio::spawn(async move { log.publish(records).await })
    };
    while log.bounds(&[at(&topic, 0)]).await.unwrap()[0].1 == 0 {
        tokio::task::yield_now().await;
    }
    within("flushing", log.flush(Duration::from_secs(60))).await;
    assert_eq!(log.bounds(&[at(&topic, 0)]).await, Ok(vec![(0, 500)]));
    assert!(publishing.await.unwrap().iter().all(Result::is_ok));
}

/// Makes one test of each case for a backend.
macro_rules! contract {
    (@one $backend:ty, [$(#[$attribute:meta])*], ($($runtime:tt)*), $case:ident) => {
        #[tokio::test($($runtime)*)]
        $(#[$attribute])*
        async fn $case() {
            $crate::cases::$case::<$backend>().await;
        }
    };
    (@all $backend:ty, $attributes:tt, $runtime:tt, $($case:ident),* $(,)?) => {
        $($crate::cases::contract!(@one $backend, $attributes, $runtime, $case);)*
    };
    ($backend:ty, $attributes:tt) => {
        $crate::cases::contract!($backend, $attributes, (flavor = "multi_thread", worker_threads = 2));
    };
    ($backend:ty, $attributes:tt, $runtime:tt) => {
        $crate::cases::contract!(
            @all $backend, $attributes, $runtime,
            what_was_published_is_read_back_in_order_per_partition,
            publishers_at_once_lose_and_mix_up_nothing,
            bounds_and_ranges_are_exact,
            many_records_are_read_in_full,
            who_follows_gets_what_is_there_and_what_comes_in_order_and_nothing_twice,
            whoever_follows_from_where_the_log_is_not_is_told,
            a_topic_is_made_once_and_its_partitions_are_checked,
            a_topic_that_is_not_there_is_named,
            a_record_that_is_too_large_is_refused_alone,
            the_dead_letter_of_the_largest_event_is_taken_and_read_like_any_record,
            a_member_gets_every_partition_and_every_record_from_the_beginning,
            progress_is_committed_with_its_epoch_and_is_where_the_next_member_starts,
            progress_is_committed_on_a_timer,
            the_window_follows_what_was_committed_a_window_ago_and_is_inherited,
            members_share_the_partitions_and_inherit_them_from_the_committed_offset,
            a_paused_partition_is_silent_and_loses_nothing,
            a_partition_paused_before_its_first_record_loses_nothing,
            progress_of_partitions_that_went_away_is_not_committed,
            progress_is_committed_up_to_the_moment_of_giving_up,
            a_member_that_is_dropped_is_replaced,
            a_call_of_next_that_is_given_up_loses_nothing,
            flush_waits_for_what_was_handed_over,
        );
    };
}
pub(crate) use contract;
