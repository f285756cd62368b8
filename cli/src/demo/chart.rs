//! Shows live how accepted and written diverge and meet again: a chart in a terminal, plain lines elsewhere.

use std::{
    io::{self, IsTerminal as _, Stdout},
    time::Duration,
};

use ratatui::{
    Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    layout::{Constraint, Layout},
    style::{Color, Style},
    symbols::Marker,
    text::{Line, Span},
    widgets::{Axis, Chart, Dataset, GraphType, Paragraph},
};

/// Lines of the terminal that the chart takes.
const HEIGHT: u16 = 15;

/// What is shown at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Since the start of the surge.
    pub(crate) at: Duration,
    /// Writes acknowledged so far.
    pub(crate) accepted: u64,
    /// Acknowledged writes that the database holds, or a newer one of the same record.
    pub(crate) settled: u64,
    /// Rows written to the database so far.
    pub(crate) written: u64,
}

/// Where the samples are shown.
pub(crate) enum Display {
    /// A chart that is redrawn in place.
    Chart(Box<Terminal<CrosstermBackend<Stdout>>>),
    /// A line a second, to stderr so that `--json` keeps stdout to itself.
    Lines {
        /// When the next line is due.
        next: Duration,
    },
}

/// All samples so far, and how they are shown.
pub(crate) struct Progress {
    display: Display,
    samples: Vec<Sample>,
    note: String,
}

impl Progress {
    /// A chart where there is a terminal and nobody wants JSON.
    pub(crate) fn new(json: bool) -> Self {
        let chart = || {
            if json || !io::stdout().is_terminal() {
                return None;
            }
            let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
            Terminal::with_options(CrosstermBackend::new(io::stdout()), options).ok()
        };
        let display = chart().map_or(Display::Lines { next: Duration::ZERO }, |t| Display::Chart(Box::new(t)));
        Self { display, samples: Vec::new(), note: String::new() }
    }

    /// Something worth saying, such as the kill.
    pub(crate) fn say(&mut self, note: impl Into<String>) {
        self.note = note.into();
        if let Display::Lines { .. } = self.display {
            eprintln!("{}", self.note);
        }
    }

    /// Takes a sample and shows it.
    pub(crate) fn sample(&mut self, sample: Sample) {
        self.samples.push(sample);
        match &mut self.display {
            Display::Lines { next } => {
                if sample.at >= *next {
                    *next = sample.at + Duration::from_secs(1);
                    eprintln!(
                        "{:>5.1} s  accepted {:>6}  in the database {:>6}  rows written {:>6}",
                        sample.at.as_secs_f64(),
                        sample.accepted,
                        sample.settled,
                        sample.written
                    );
                }
            }
            Display::Chart(terminal) => {
                // A terminal that can't be drawn on costs the picture, not the run.
                let _ = draw(terminal, &self.samples, &self.note);
            }
        }
    }

    /// Leaves the last picture standing.
    pub(crate) fn finish(mut self) {
        if let Display::Chart(terminal) = &mut self.display {
            let _ = draw(terminal, &self.samples, &self.note);
            let _ = terminal.show_cursor();
            println!();
        }
    }
}

fn draw(terminal: &mut Terminal<CrosstermBackend<Stdout>>, samples: &[Sample], note: &str) -> io::Result<()> {
    let series = |value: fn(&Sample) -> u64| -> Vec<(f64, f64)> {
        samples.iter().map(|s| (s.at.as_secs_f64(), value(s) as f64)).collect()
    };
    let (accepted, settled, written) = (series(|s| s.accepted), series(|s| s.settled), series(|s| s.written));
    let last = samples.last().copied().unwrap_or_default();
    let (right, top) = (last.at.as_secs_f64().max(5.0), (last.accepted as f64).max(10.0));
    let line = |name: String, color, data| {
        let style = Style::default().fg(color);
        Dataset::default().name(name).marker(Marker::Braille).graph_type(GraphType::Line).style(style).data(data)
    };
    let datasets = vec![
        line(format!("accepted {}", last.accepted), Color::Cyan, &accepted[..]),
        line(format!("in the database {}", last.settled), Color::Green, &settled[..]),
        line(format!("rows written {}", last.written), Color::DarkGray, &written[..]),
    ];
    let labels = |end: f64, unit: &str| {
        vec![Span::raw("0"), Span::raw(format!("{:.0}{unit}", end / 2.0)), Span::raw(format!("{end:.0}{unit}"))]
    };
    terminal.draw(|frame| {
        let [picture, below] = Layout::vertical([Constraint::Min(3), Constraint::Length(1)]).areas(frame.area());
        let chart = Chart::new(datasets)
            .x_axis(Axis::default().bounds([0.0, right]).labels(labels(right, " s")))
            .y_axis(Axis::default().bounds([0.0, top]).labels(labels(top, "")));
        frame.render_widget(chart, picture);
        frame.render_widget(
            Paragraph::new(Line::from(note.to_owned())).style(Style::default().fg(Color::Yellow)),
            below,
        );
    })?;
    Ok(())
}
