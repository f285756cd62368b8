//! Statements of people: scripts that make tables, and questions of the demo and the tests, past the protocol.

use model::Value;

use crate::{
    AnyDatabase, DatabaseError,
    any::Kind,
    relational::{
        session::{Backend, Failure, INT, Session as _},
        statement::Statement,
    },
};

impl AnyDatabase {
    /// Runs statements one after another, each in a transaction of its own unless the script says otherwise.
    ///
    /// # Errors
    /// The first statement that fails; those before it stay done.
    pub async fn run_script(&self, sql: &str) -> Result<(), DatabaseError> {
        let (sql, name) = (sql.to_owned(), self.name().to_string());
        match self.kind() {
            #[cfg(feature = "mysql")]
            Kind::Mysql(database) => {
                database.detached(|backend| async move { script(&*backend, sql).await.map_err(|f| f.on(&name)) }).await
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres(database) => {
                database.detached(|backend| async move { script(&*backend, sql).await.map_err(|f| f.on(&name)) }).await
            }
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(database) => {
                database.detached(|backend| async move { script(&*backend, sql).await.map_err(|f| f.on(&name)) }).await
            }
        }
    }

    /// The integers in the first column of a query's rows.
    ///
    /// # Errors
    /// If the query fails, or a value is no integer.
    pub async fn query_integers(&self, sql: &str) -> Result<Vec<i64>, DatabaseError> {
        let (sql, name) = (sql.to_owned(), self.name().to_string());
        let rows = match self.kind() {
            #[cfg(feature = "mysql")]
            Kind::Mysql(database) => {
                database
                    .detached(|backend| async move { integers(&*backend, sql).await.map_err(|f| f.on(&name)) })
                    .await
            }
            #[cfg(feature = "postgres")]
            Kind::Postgres(database) => {
                database
                    .detached(|backend| async move { integers(&*backend, sql).await.map_err(|f| f.on(&name)) })
                    .await
            }
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(database) => {
                database
                    .detached(|backend| async move { integers(&*backend, sql).await.map_err(|f| f.on(&name)) })
                    .await
            }
        }?;
        Ok(rows
            .into_iter()
            .flatten()
            .filter_map(|value| if let Value::Int64(number) = value { Some(number) } else { None })
            .collect())
    }
}

async fn script<B: Backend>(backend: &B, sql: String) -> Result<(), Failure> {
    backend.session().await?.run_script(sql).await
}

async fn integers<B: Backend>(backend: &B, sql: String) -> Result<Vec<Vec<Value>>, Failure> {
    backend.session().await?.fetch(Statement::new(sql), &[INT]).await
}
