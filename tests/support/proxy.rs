//! A TCP proxy that stops, holds back and cuts, for what lies between a client and its server.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it, and one that can not go on stops"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The treatment of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Pass,
    /// Bytes of clients are kept, and go on when they pass again, also if their client is gone by then.
    HoldRequests,
    /// Bytes of the server are kept.
    HoldReplies,
    /// Nothing passes in either direction, without an error: as if the cable were out.
    Hold,
    /// New connections are closed at once.
    Refuse,
}

struct State {
    target: u16,
    mode: Mode,
    streams: Vec<TcpStream>,
    /// Number of bytes of requests and replies that have come, passed or not.
    seen: [u64; 2],
    ended: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// A running proxy. It ends with it.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Shared,
}

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// In front of this port of 127.0.0.1.
    pub(crate) fn start(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { target, mode: Mode::Pass, streams: Vec::new(), seen: [0; 2], ended: false };
        let state: Shared = Arc::new((Mutex::new(state), Condvar::new()));
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                {
                    let mut state = lock(&shared);
                    if state.ended {
                        return;
                    }
                    if state.mode == Mode::Refuse {
                        continue;
                    }
                    let Ok(server) = TcpStream::connect(("127.0.0.1", state.target)) else { continue };
                    let _ = client.set_nodelay(true);
                    let _ = server.set_nodelay(true);
                    for (from, to, way) in [(&client, &server, 0), (&server, &client, 1)] {
                        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                        let shared = shared.clone();
                        thread::spawn(move || carry(from, to, way, &shared));
                    }
                    state.streams.push(client);
                    state.streams.push(server);
                }
            }
        });
        Proxy { address, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn set(&self, mode: Mode) {
        lock(&self.state).mode = mode;
        self.state.1.notify_all();
    }

    /// Leads elsewhere from now on, as an address does that is moved to another machine; what is open is closed.
    pub(crate) fn lead_to(&self, target: u16) {
        let mut state = lock(&self.state);
        state.target = target;
        close(&mut state);
    }

    /// How many bytes of requests have come.
    pub(crate) fn requests(&self) -> u64 {
        lock(&self.state).seen[0]
    }

    /// How many bytes of replies have come.
    pub(crate) fn replies(&self) -> u64 {
        lock(&self.state).seen[1]
    }

    /// Closes what is open, on both sides.
    pub(crate) fn cut(&self) {
        close(&mut lock(&self.state));
    }

    /// The same and another mode from then on: nothing that was held slips through between.
    pub(crate) fn cut_and(&self, mode: Mode) {
        let mut state = lock(&self.state);
        close(&mut state);
        state.mode = mode;
        self.state.1.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.state);
            state.ended = true;
            state.mode = Mode::Pass;
        }
        self.state.1.notify_all();
        self.cut();
        // Wakes the one who waits for clients.
        let _ = TcpStream::connect(self.address);
    }
}

fn close(state: &mut State) {
    for stream in state.streams.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, way: usize, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        let mut state = lock(shared);
        state.seen[way] += count as u64;
        shared.1.notify_all();
        let held = if way == 0 { Mode::HoldRequests } else { Mode::HoldReplies };
        while state.mode == held || state.mode == Mode::Hold {
            state = shared.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}
