//! Types: which of each database come back as they went in, and which are refused.
//!
//! The database's own contract asks each server, and makes docs/TYPES.md of it; here it is run, and counted.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use shock_absorber_tests::{
    given,
    servers::{MariaDbServer, MySqlServer, PostgresServer},
};
use tokio::process::Command;

use crate::report::{Reach, Report};

/// Counts them.
pub(crate) async fn measure() -> Result<Report> {
    let told = tempfile::tempdir()?;
    let mut command = Command::new("cargo");
    command.args(["test", "-p", "database", "--test", "contract", "--", "--include-ignored", "types::on_sqlite"]);
    command.env("SHOCK_ABSORBER_TYPES_REPORT", told.path()).kill_on_drop(true);
    eprintln!("starting MariaDB, PostgreSQL and MySQL");
    let mariadb = MariaDbServer::start().await?;
    mariadb.create_schema("types").await?;
    command.arg("types::on_mariadb").env(given::MARIADB, mariadb.url("types"));
    let postgres = PostgresServer::start().await?;
    postgres.create_database("types").await?;
    command.arg("types::on_postgres").env(given::POSTGRES, postgres.url("types"));
    let mut databases = vec!["MariaDB", "PostgreSQL", "SQLite"];
    // Not every mirror brings it.
    let mysql = match MySqlServer::start().await {
        Ok(mysql) => {
            command.arg("types::on_mysql").env(given::MYSQL, mysql.url("mysql"));
            databases.push("MySQL");
            Some(mysql)
        }
        Err(error) => {
            eprintln!("without MySQL: {error:#}");
            None
        }
    };
    let output = command.output().await.context("cargo could not be run")?;
    drop((mariadb, postgres, mysql));
    let mut report = Report::new("types");
    for database in databases {
        let lists = list(told.path(), database, "carried").and_then(|carried| {
            let refused = list(told.path(), database, "refused")?;
            Ok((carried, refused))
        });
        let (carried, refused) = lists.with_context(|| {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        })?;
        let values: u64 = carried.iter().filter_map(|case| case["values"].as_u64()).sum();
        ensure!(!carried.is_empty() && values > carried.len() as u64, "{database} was asked nothing");
        let round_trip = carried.iter().filter(|case| case["round_trips"] == true).count() as f64;
        let what = format!("{database}: types round-tripped, by {values} values");
        report.add(what, round_trip, "types", carried.len() as f64, Reach::AtLeast(carried.len() as f64));
        let many = refused.len() as f64;
        report.add(format!("{database}: types refused, with the reason"), many, "types", many, Reach::AtLeast(1.0));
        report.detail(database.to_owned(), serde_json::json!({ "carried": carried, "refused": refused }));
    }
    Ok(report)
}

fn list(told: &Path, database: &str, what: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(told.join(format!("{database}.{what}.json")))?;
    Ok(serde_json::from_str(&text)?)
}
