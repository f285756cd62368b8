//! The contract of [`HotStore`] and [`Budget`], as tests that every backend runs.
//!
//! A backend gives each test a shard of its own, closed and empty, and can act as if the store had been restarted.

pub mod aside;
pub mod backlogs;
pub mod budgets;
pub mod closed;
pub mod evictions;
pub mod halts;
pub mod indexes;
pub mod kit;
pub mod leases;
pub mod marks;
pub mod openings;
pub mod parking;
pub mod reads;
pub mod reports;
pub mod requests;
pub mod restores;
pub mod writes;

use std::future::Future;

use hot_store::{Budget, HotStore};
use model::Shard;

/// A store under test.
pub trait Backend {
    /// Its type.
    type Store: HotStore + Budget;

    /// The store.
    fn store(&self) -> &Self::Store;

    /// The test's own shard.
    fn shard(&self) -> Shard;

    /// Acts as if the store had been restarted and nothing had been lost.
    fn restart(&self) -> impl Future<Output = ()>;
}

/// Makes a test of every function of the suite. `$backend` is an expression that makes a [`Backend`]; the attributes
/// go to every test.
#[macro_export]
macro_rules! contract_tests {
    ($backend:expr, $(#[$attribute:meta])*) => {
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], writes:
            versions_rise_strictly_also_within_a_call
            versions_rise_when_the_clock_steps_back
            an_image_reads_back_as_it_was_written
            every_precondition_in_every_state
            an_etag_names_version_and_epoch
            later_writes_of_a_call_see_earlier_ones
            a_create_that_asked_only_the_store_carries_since_until_it_is_clean
            a_create_over_a_known_dirty_delete_carries_no_since_of_its_own
            what_is_dirty_never_expires
            many_records_in_one_call
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], marks:
            a_mark_takes_a_record_out_of_the_unqueued_set
            a_stale_mark_leaves_the_newer_version_unqueued
            a_mark_of_what_the_store_does_not_know_is_false
            a_mark_under_another_epoch_is_refused
            a_mark_of_nothing_tells_whether_the_epoch_is_still_that_one
            clean_at_its_version_starts_the_ttl
            a_clean_of_an_older_version_leaves_the_record_dirty
            a_newer_row_replaces_the_image_as_clean
            a_lower_image_does_not_survive_a_clean_without_a_row
            a_clean_breaks_a_lease_and_a_remembered_absence
            a_clean_may_come_again
            dirty_records_are_listed_by_version_and_in_pages
            records_of_one_version_are_not_parted
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], reads:
            many_shards_are_read_at_once_and_each_fails_for_itself
            what_is_too_much_for_one_answer_is_read_by_and_by
            an_even_share_of_the_bytes_is_no_limit_of_a_shard
            a_read_of_many_tells_more_than_a_call_can_carry
            images_that_are_removed_are_counted_and_what_expires_or_is_replaced_is_not
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], evictions:
            what_the_database_has_is_forgotten_and_what_it_has_not_stays
            a_read_that_began_before_can_t_fill_in_what_it_saw
            what_is_forgotten_is_cold_to_preconditions
            many_are_forgotten_in_one_call
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], parking:
            a_parked_record_is_read_and_is_neither_dirty_nor_behind
            only_a_dirty_image_of_that_version_is_parked
            many_are_parked_in_one_call_each_for_itself
            a_write_ends_the_parking_and_is_dirty_as_ever
            preconditions_see_what_is_parked
            a_replay_asks_for_what_is_parked_be_it_a_row_or_a_tombstone
            since_goes_on_over_what_is_parked
            a_write_that_asks_for_nothing_leaves_the_since_of_what_is_parked_behind
            marks_of_the_drain_find_what_is_parked
            a_purge_removes_what_is_parked_at_that_version_only
            parked_records_are_listed_by_table_and_version_in_pages
            what_is_parked_never_expires
            a_closed_shard_parks_lists_and_purges_nothing
            a_discard_ends_what_was_parked
            an_opening_parks_a_letter_over_what_is_lower_and_clean
            an_opening_leaves_what_is_parked_unless_it_brings_something_newer
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], requests:
            a_repeated_request_names_the_first_and_writes_nothing
            another_payload_under_the_same_id_is_refused
            a_refused_write_stores_no_request
            a_request_may_come_again_within_one_call
            a_write_that_was_asked_for_too_long_ago_takes_no_effect
            tables_have_requests_of_their_own
            a_request_outlives_the_record_that_it_wrote
            a_request_is_read_back_with_the_image
            requests_survive_a_restart_with_what_they_wrote
            a_discard_leaves_requests
            an_opening_puts_requests_back_the_newest_of_an_id
            an_empty_store_gets_the_newest_of_an_id
            who_resumes_a_discard_keeps_the_requests_that_were_put_back
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], backlogs:
            an_empty_store_is_filled_at_once_and_offered_the_same_again_with_more_it_takes_the_rest
            without_a_backlog_the_horizon_is_the_clock_and_later_writes_are_above_it
            a_horizon_is_never_above_a_clock_that_is_ahead_nor_steps_back
            a_record_that_is_written_again_stays_as_far_behind
            the_tables_of_a_shard_have_backlogs_of_their_own
            a_clean_of_an_older_version_moves_the_backlog_on
            whatever_ends_a_records_dirtiness_ends_its_backlog
            a_backlog_survives_a_restart_and_a_discard_ends_it
            what_an_opening_puts_back_is_as_far_behind_as_the_log_shows
            what_a_note_names_holds_back_what_is_dirty_and_nothing_else
            a_backlog_is_what_the_dirty_records_come_to
            what_a_call_puts_into_an_empty_store_counts_for_the_rest_of_it
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], indexes:
            what_a_write_puts_there_is_found_until_it_is_clean
            what_a_newer_row_replaces_is_not_found
            what_is_parked_is_found_until_it_is_purged_or_written
            the_last_of_several_writes_of_a_call_is_found
            an_index_that_a_write_does_not_keep_is_none
            while_an_index_is_built_writes_keep_it_and_it_is_found_in_when_it_is_complete
            who_builds_what_was_dropped_meanwhile_is_told
            an_opening_voids_the_index
            what_is_found_comes_in_pages_by_the_keys_bytes
            many_records_are_indexed_in_one_call
            an_index_is_what_a_scan_would_find
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], leases:
            one_reader_gets_the_lease_and_fills
            a_write_breaks_the_lease
            a_lease_that_is_given_back_is_somebody_else_s
            a_lease_expires_and_the_slow_fill_is_refused
            an_absence_is_remembered_for_a_while
            what_is_there_is_taken
            a_row_from_before_us_can_be_filled_and_named_by_an_etag
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], closed:
            a_shard_that_was_never_opened_refuses_everything
            a_shard_is_closed_after_a_restart
            a_shard_that_does_not_exist_is_an_error
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], openings:
            the_first_claim_finds_nothing
            an_open_shard_is_not_claimed
            a_takeover_voids_every_other_token
            nobody_restores_or_finishes_who_has_not_begun
            a_token_is_bound_to_the_incarnation
            a_start_is_resumed_under_the_same_incarnation_only
            a_checkpoint_survives_a_restart
            a_checkpoint_of_another_epoch_is_refused
            images_survive_leases_and_absences_do_not
            discarding_drops_everything
            a_discard_after_a_start_that_did_not_drops_everything
            a_checkpoint_that_was_not_believed_is_forgotten
            who_resumes_a_discard_keeps_what_was_put_back
            an_epoch_that_is_not_higher_is_refused
            the_clock_is_seeded_and_never_lowered
            an_etag_of_before_an_opening_is_stale
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], aside:
            a_discard_sets_aside_what_the_database_did_not_have
            what_was_parked_is_set_aside_too
            an_opening_that_discards_nothing_finds_nothing_aside
            what_is_put_back_is_set_aside_no_longer
            an_event_of_the_log_goes_over_a_lower_version_that_was_put_back
            what_is_aside_outlives_the_opener_and_another_restart
            what_is_aside_is_shown_to_the_opener_only
            what_is_aside_comes_in_pages
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], restores:
            events_are_put_back_over_nothing_and_over_lower_versions
            rows_stand_as_clean_over_lower_versions
            at_or_below_the_purge_horizon_an_image_goes
            since_comes_back_with_the_event
            what_was_put_back_can_be_drained
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], budgets:
            no_second_sees_more_than_the_rate_and_one_batch_however_long_batches_take
            a_limit_that_is_not_known_begins_with_a_pause
            less_than_one_row_per_second_works
            limits_do_not_touch_each_other
            a_raised_limit_holds_at_once_and_a_lowered_one_from_the_next_grant_on
            a_limit_can_count_transactions
            a_batch_passes_all_limits_or_none
            so_many_are_unfinished_at_most
            who_waits_for_longer_goes_first_while_it_asks
            what_was_held_up_counts_when_it_ends
            what_a_larger_batch_adds_must_find_room
            an_end_may_be_told_twice_and_of_what_is_not_known
            a_permit_falls_free_unless_it_is_renewed
            no_rate_grants_nothing_and_no_rows_cost_nothing
            replicas_agree_on_a_limit_and_none_overwrites_what_it_has_not_seen
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], halts:
            a_halt_refuses_writes_of_its_tables_and_reads_go_on
            an_earlier_wish_replaces_no_later_one
            a_request_that_took_effect_is_told_so_in_spite_of_a_halt
            a_closed_shard_is_halted_before_it_is_opened
        );
        $crate::contract_tests!(@module $backend, [$(#[$attribute])*], reports:
            the_last_report_of_each_replica_is_shown
            who_tells_nothing_any_more_is_shown_no_more
            so_many_reports_are_kept_at_most
        );
    };
    (@module $backend:expr, $attributes:tt, $module:ident: $($name:ident)*) => {
        mod $module {
            use super::*;
            $($crate::contract_tests!(@test $backend, $attributes, $module, $name);)*
        }
    };
    (@test $backend:expr, [$(#[$attribute:meta])*], $module:ident, $name:ident) => {
        $(#[$attribute])*
        async fn $name() {
            $crate::contract::$module::$name(&$backend.await).await;
        }
    };
}
