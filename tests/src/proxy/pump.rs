//! One connection through a proxy.

use std::io::{self, Error, ErrorKind};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::sleep,
};

use super::{State, Weather};

const CHUNK: usize = 16 * 1024;

/// Closes with a reset, as the system does for a process that was killed.
pub(super) fn abort(stream: TcpStream) {
    // If it can't be told so, the drop closes it in order.
    let _ = stream.set_zero_linger();
}

/// Lets bytes pass until either side ends, or the connection is reset.
pub(super) async fn both_ways(client: TcpStream, server: TcpStream, state: watch::Receiver<State>) {
    // Small pieces must go out by themselves, or slices would be put together again.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let generation = state.borrow().generation;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = one_way(&mut from_client, &mut to_server, state.clone());
    let back = one_way(&mut from_server, &mut to_client, state.clone());
    let mut resets = state;
    let ended = tokio::select! {
        biased;
        // An error here: the proxy is gone.
        _ = resets.wait_for(|state| state.generation > generation) => Err(Error::from(ErrorKind::ConnectionReset)),
        ended = async { tokio::try_join!(there, back) } => ended.map(drop),
    };
    if ended.is_err() {
        for (read, write) in [(from_client, to_client), (from_server, to_server)] {
            if let Ok(stream) = read.reunite(write) {
                abort(stream);
            }
        }
    }
}

async fn one_way(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let weather = state.borrow_and_update().weather;
            let size = match weather {
                Weather::Sliced { bytes, .. } => bytes.clamp(1, rest.len()),
                _ => rest.len(),
            };
            match weather {
                Weather::Stalled | Weather::Cut => {
                    state.changed().await.map_err(|_| Error::from(ErrorKind::ConnectionReset))?;
                    continue;
                }
                Weather::Latency(delay) => sleep(delay).await,
                Weather::Fair | Weather::Sliced { .. } => {}
            }
            let (piece, left) = rest.split_at(size);
            to.write_all(piece).await?;
            rest = left;
            if let Weather::Sliced { pause, .. } = weather {
                sleep(pause).await;
            }
        }
    }
}
