//! A TCP proxy between two parts of the system that delays, cuts, stalls and slices what passes.

mod pump;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What is done to the bytes of a link, in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weather {
    /// They pass.
    #[default]
    Fair,
    /// Each piece of them is late by this.
    Latency(Duration),
    /// They pass in pieces of at most so many bytes, with a pause after each.
    Sliced {
        /// The most bytes of a piece.
        bytes: usize,
        /// The pause.
        pause: Duration,
    },
    /// Connections are accepted and stay open, and nothing passes.
    Stalled,
    /// Nobody answers: connections are reset, new ones at once.
    Cut,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    weather: Weather,
    /// Connections that were made under a lower number are reset.
    generation: u64,
}

/// A proxy on a port of its own; it lives as long as this handle.
#[derive(Debug)]
pub struct Proxy {
    name: String,
    port: u16,
    state: watch::Sender<State>,
    accepted: Arc<AtomicU64>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// A proxy of that name before `target`, a port on loopback where nobody needs to listen yet.
    ///
    /// # Errors
    /// If it can't listen.
    pub async fn start(name: &str, target: u16) -> Result<Self> {
        // A server that is down must not find its client's outgoing connection on this port.
        let port = crate::port::free()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("a proxy can't listen")?;
        let (state, _) = watch::channel(State::default());
        let accepted = Arc::new(AtomicU64::new(0));
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, target));
        let listening = tokio::spawn(listen(listener, target, state.clone(), accepted.clone()));
        Ok(Self { name: name.to_owned(), port, state, accepted, listening })
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it has accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// What is done from now on, also to connections that are open.
    pub fn set(&self, weather: Weather) {
        self.state.send_modify(|state| {
            state.weather = weather;
            if weather == Weather::Cut {
                state.generation += 1;
            }
        });
    }

    /// Resets all open connections; what is on its way is gone.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.reset();
    }
}

async fn listen(listener: TcpListener, target: SocketAddr, state: watch::Sender<State>, accepted: Arc<AtomicU64>) {
    loop {
        // Whatever stands against accepting (too many open files, say) passes, or the test fails for it.
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        accepted.fetch_add(1, Ordering::Relaxed);
        let state = state.subscribe();
        tokio::spawn(async move {
            if state.borrow().weather == Weather::Cut {
                return pump::abort(client);
            }
            match TcpStream::connect(target).await {
                Ok(server) => pump::both_ways(client, server, state).await,
                // As if it had been the server itself.
                Err(_) => pump::abort(client),
            }
        });
    }
}

#[cfg(test)]
mod tests;
