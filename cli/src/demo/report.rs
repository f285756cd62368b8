//! The figures in words, and what to try next.

use super::figures::Figures;

/// Prints the figures side by side with what happens without Shock Absorber.
pub(crate) fn print(figures: &Figures) {
    let Figures { acked, written, coalesced, direct, .. } = figures;
    let gave_up = 100.0 * direct.timed_out as f64 / direct.sent.max(1) as f64;
    println!("                              with Shock Absorber     straight to the database");
    println!("writes acknowledged           {acked:<23} {} of {}", direct.sent - direct.timed_out, direct.sent);
    println!(
        "clients that gave up          {:<23} {} ({gave_up:.0} %, after {} ms)",
        0, direct.timed_out, direct.timeout_ms
    );
    println!("time to acknowledge, median   {:<23} {}", ms(figures.ack_p50_ms), ms(direct.p50_ms));
    println!("time to acknowledge, p99      {:<23} {}", ms(figures.ack_p99_ms), ms(direct.p99_ms));
    println!("time to read back, p99        {}", ms(figures.read_p99_ms));
    println!(
        "rows written                  {written} ({coalesced} writes were overtaken by newer ones of their record)"
    );
    println!(
        "busiest second                {} rows (limit {} and one batch of {})",
        figures.max_writes_in_any_second, figures.limit, figures.batch_rows
    );
    println!("kill -9, answering again in   {:.2} s", figures.recovered_s);
    println!("the database caught up in     {:.1} s after the surge", figures.caught_up_s);
    if figures.mismatched == 0 {
        println!("\nEvery row of the database is what was acknowledged last, and every read was fresh.");
    } else {
        println!("\n{} records are NOT what was acknowledged.", figures.mismatched);
    }
    println!(
        "\nNext: `cargo run --release -- dev` keeps it running; `... demo --payments 5000 --limit 200` makes the shock larger;"
    );
    println!("`... demo --config FILE` does the same on your Redis, Kafka and MySQL.");
}

fn ms(value: f64) -> String {
    format!("{value:.1} ms")
}
