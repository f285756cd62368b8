//! The scenarios of the whole system. Each runs on the embedded edition and, with `./tests/run`, on real Redis, Kafka
//! and MariaDB, and on PostgreSQL in its place.

mod scenarios;

use shock_absorber_tests::{ServiceSettings, System};

/// Tables of the scenarios: the example table, one with a composite key, and one with an indexed field.
const TABLES: &str = concat!(
    include_str!("../../cli/sql/payments.sql"),
    "CREATE TABLE entries (tenant VARCHAR(20) NOT NULL, n BIGINT NOT NULL, amount DECIMAL(18, 2) NOT NULL, \
     note VARCHAR(40), PRIMARY KEY (tenant, n));\n\
     CREATE TABLE orders (id BIGINT NOT NULL PRIMARY KEY, customer BIGINT NOT NULL);\n\
     CREATE INDEX orders_of_customer ON orders (customer, id);\n"
);

/// Fast enough to be waited for, slow enough to be overtaken.
fn settings() -> ServiceSettings {
    ServiceSettings::new().set("drain.rows_per_second", 200)
}

/// So slow that nothing is drained while a scenario looks.
fn crawling() -> ServiceSettings {
    ServiceSettings::new().set("drain.rows_per_second", 1)
}

macro_rules! scenarios {
    ($($(#[$doc:meta])* $name:ident with $settings:ident;)*) => {
        mod embedded {
            use super::*;
            $($(#[$doc])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> anyhow::Result<()> {
                scenarios::$name(&mut System::embedded(TABLES, $settings()).await?).await
            })*
        }

        mod on_servers {
            use super::*;
            $($(#[$doc])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a server: ./tests/run starts one"]
            async fn $name() -> anyhow::Result<()> {
                scenarios::$name(&mut System::on_shared_servers(TABLES, $settings()).await?).await
            })*
        }

        mod on_postgres {
            use super::*;
            $($(#[$doc])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a server: ./tests/run starts one"]
            async fn $name() -> anyhow::Result<()> {
                // PostgreSQL calls it otherwise.
                let tables = TABLES.replace("DATETIME", "TIMESTAMP");
                scenarios::$name(&mut System::on_shared_postgres(&tables, $settings()).await?).await
            })*
        }
    };
}

scenarios! {
    reads_see_the_newest_write_before_the_drain with crawling;
    preconditions_hold_for_hot_and_cold_records with settings;
    bad_input_is_refused_and_changes_nothing with settings;
    a_batch_keeps_order_per_key_and_answers_per_item with settings;
    many_reads_are_answered_as_one_by_one with settings;
    records_are_found_by_a_field_wherever_they_are with settings;
    what_others_write_is_seen_when_it_is_asked_for_or_the_record_is_forgotten with settings;
    etags_do_not_notice_what_others_change with settings;
    the_drain_writes_whole_rows_over_what_others_changed with settings;
    what_was_acknowledged_reaches_the_database with settings;
    rows_that_were_there_before_us_are_read_changed_and_deleted with settings;
    nothing_is_lost_when_everything_is_killed with settings;
    the_limit_holds_and_writes_are_coalesced with settings;
    tables_are_enabled_and_disabled_for_good with settings;
    applied_means_that_the_database_has_it with settings;
    an_orderly_stop_leaves_nothing_behind with settings;
    a_pause_holds_across_restarts_and_status_tells_of_it with settings;
    drained_down_means_that_nothing_comes_in_and_nothing_waits with settings;
    a_stream_of_writes_outlives_a_kill_and_a_stop with settings;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn a_stream_of_writes_outlives_a_redis_that_is_killed() -> anyhow::Result<()> {
    let mut system = System::on_own_servers(TABLES, settings()).await?;
    scenarios::a_stream_of_writes_outlives_a_redis_that_is_killed(&mut system).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_trigger_of_theirs_changes_is_theirs_embedded() -> anyhow::Result<()> {
    let trigger = "CREATE TRIGGER booked AFTER INSERT ON entries \
                   BEGIN UPDATE payments SET status = 'BOOKED' WHERE id = NEW.note; END";
    let mut system = System::embedded(TABLES, settings()).await?;
    scenarios::what_a_trigger_of_theirs_changes_is_theirs(&mut system, trigger).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn what_a_trigger_of_theirs_changes_is_theirs_on_mariadb() -> anyhow::Result<()> {
    let trigger = "CREATE TRIGGER booked AFTER INSERT ON entries FOR EACH ROW \
                   UPDATE payments SET status = 'BOOKED' WHERE id = NEW.note";
    let mut system = System::on_shared_servers(TABLES, settings()).await?;
    scenarios::what_a_trigger_of_theirs_changes_is_theirs(&mut system, trigger).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a server: ./tests/run starts one"]
async fn what_a_trigger_of_theirs_changes_is_theirs_on_postgres() -> anyhow::Result<()> {
    let trigger = "CREATE FUNCTION booked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                   UPDATE payments SET status = 'BOOKED' WHERE id = NEW.note; RETURN NULL; END $$; \
                   CREATE TRIGGER booked AFTER INSERT ON entries FOR EACH ROW EXECUTE FUNCTION booked()";
    let mut system = System::on_shared_postgres(&TABLES.replace("DATETIME", "TIMESTAMP"), settings()).await?;
    scenarios::what_a_trigger_of_theirs_changes_is_theirs(&mut system, trigger).await
}
