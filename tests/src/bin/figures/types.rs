//! Types: how many of each database come back as they went in, and how many are refused.
//!
//! The database's own contract asks each server, and makes docs/TYPES.md of it; here it is run, and counted.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use shock_absorber_tests::{
    given,
    servers::{MariaDbServer, MySqlServer},
};
use tokio::process::Command;

use crate::report::{Reach, Report};

/// Counts them.
pub(crate) async fn measure() -> Result<Report> {
    let told = tempfile::tempdir()?;
    let mut command = Command::new("cargo");
    command.args(["test", "-p", "database", "--test", "contract", "--", "--include-ignored", "types::on_sqlite"]);
    command.env("SHOCK_ABSORBER_TYPES_REPORT", told.path()).kill_on_drop(true);
    eprintln!("starting MariaDB and MySQL");
    let mariadb = MariaDbServer::start().await?;
    mariadb.create_schema("types").await?;
    command.arg("types::on_mariadb").env(given::MARIADB, mariadb.url("types"));
    let mut databases = vec!["MariaDB", "SQLite"];
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
    drop((mariadb, mysql));
    let mut report = Report::new("types");
    for database in databases {
        let numbers = read(told.path(), database, "round_tripped");
        let refused = read(told.path(), database, "refused");
        let (numbers, refused) = numbers.and_then(|numbers| Ok((numbers, refused?))).with_context(|| {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        })?;
        let ([round_tripped, types, values], [refused]) = (numbers.as_slice(), refused.as_slice()) else {
            anyhow::bail!("{database} told {numbers:?} and {refused:?}");
        };
        ensure!(*types > 0.0 && *values > *types, "{database} was asked nothing");
        let what = format!("{database}: types round-tripped, by {values} values");
        report.add(what, *round_tripped, "types", *types, Reach::AtLeast(*types));
        report.add(format!("{database}: types refused"), *refused, "types", *refused, Reach::AtLeast(1.0));
    }
    Ok(report)
}

fn read(told: &Path, database: &str, what: &str) -> Result<Vec<f64>> {
    let text = fs::read_to_string(told.join(format!("{database}.{what}")))?;
    Ok(text.split(' ').map(str::parse).collect::<Result<_, _>>()?)
}
