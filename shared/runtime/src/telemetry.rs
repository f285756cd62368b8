//! Logs to standard error, metrics for Prometheus.
//!
//! Code that measures asks `opentelemetry::global::meter` for a meter and knows nothing of Prometheus.

use std::io;

use opentelemetry::{global, metrics::MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt as _};

use crate::config::{LogFormat, TelemetrySettings};

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error("telemetry.log is {filter:?}, which is no filter: {problem}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Another subscriber is there already.
    #[error("logging was set up twice in one process: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The exporter could not be made.
    #[error("the metrics could not be set up: {0}")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
}

/// The metrics of this process, readable as text. A handle: clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    provider: SdkMeterProvider,
}

impl Metrics {
    /// Metrics of their own, not the process's: for tests, and for [`init`].
    ///
    /// # Errors
    /// [`TelemetryError::Metrics`] if the exporter can't be made.
    pub fn new() -> Result<Self, TelemetryError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        Ok(Self { registry, provider: SdkMeterProvider::builder().with_reader(exporter).build() })
    }

    /// A meter whose instruments show here.
    pub fn meter(&self, scope: &'static str) -> opentelemetry::metrics::Meter {
        self.provider.meter(scope)
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If a metric can't be written, such as one of two with the same name.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Starts logging and measuring for the whole process. What comes back serves [`Metrics::text`].
///
/// # Errors
/// [`TelemetryError`]; among others if the process has a subscriber already.
pub fn init(settings: &TelemetrySettings) -> Result<Metrics, TelemetryError> {
    let metrics = Metrics::new()?;
    match settings.log_format {
        LogFormat::Text => text_lines(settings, io::stderr)?.try_init()?,
        LogFormat::Json => json_lines(settings, io::stderr)?.try_init()?,
    }
    global::set_meter_provider(metrics.provider.clone());
    Ok(metrics)
}

fn filter(settings: &TelemetrySettings) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(&settings.log)
        .map_err(|error| TelemetryError::Filter { filter: settings.log.clone(), problem: error.to_string() })
}

fn text_lines<W>(settings: &TelemetrySettings, to: W) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    use std::io::IsTerminal as _;
    let colours = io::stderr().is_terminal();
    Ok(tracing_subscriber::fmt().with_env_filter(filter(settings)?).with_ansi(colours).with_writer(to).finish())
}

fn json_lines<W>(settings: &TelemetrySettings, to: W) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(true).with_span_list(false);
    Ok(lines.with_env_filter(filter(settings)?).with_writer(to).finish())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn settings(log: &str, log_format: LogFormat) -> TelemetrySettings {
        TelemetrySettings { log: log.to_owned(), log_format }
    }

    #[test]
    fn a_json_line_is_one_object_with_its_fields() {
        let lines = Lines::default();
        let subscriber = json_lines(&settings("info", LogFormat::Json), lines.clone()).unwrap();
        with_default(subscriber, || tracing::info!(shard = 17, "opened"));
        let line: serde_json::Value = serde_json::from_str(lines.text().trim()).unwrap();
        assert_eq!(line["message"], "opened");
        assert_eq!(line["shard"], 17);
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn the_filter_decides_what_is_written() {
        let lines = Lines::default();
        let subscriber = text_lines(&settings("warn,runtime=info", LogFormat::Text), lines.clone()).unwrap();
        with_default(subscriber, || {
            tracing::info!("kept");
            tracing::debug!("dropped");
            tracing::info!(target: "elsewhere", "dropped");
        });
        let text = lines.text();
        assert!(text.contains("kept") && !text.contains("dropped"), "{text}");
    }

    #[test]
    fn a_broken_filter_is_named() {
        let error = filter(&settings("a=b=c", LogFormat::Text)).unwrap_err().to_string();
        assert!(error.contains("telemetry.log") && error.contains("a=b=c"), "{error}");
    }

    #[test]
    fn what_is_counted_shows_in_the_text() {
        let metrics = Metrics::new().unwrap();
        let counter = metrics.meter("test").u64_counter("writes_accepted").build();
        counter.add(3, &[opentelemetry::KeyValue::new("table", "main.payments")]);
        let text = metrics.text().unwrap();
        assert!(
            text.lines().any(|line| line.starts_with("writes_accepted_total{")
                && line.contains("table=\"main.payments\"")
                && line.ends_with(" 3")),
            "{text}"
        );
    }
}
