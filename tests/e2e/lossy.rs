//! A proxy in front of one host that makes of TCP what a network does that loses two packets in five, and delays all.
//!
//! A lost packet comes later: after 200 ms, or 600, or 1400, as TCP sends it again. The next ones wait behind it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Percentage of packets that are lost.
const LOST_PER_CENT: u64 = 40;

/// Each is late by up to this.
const JITTER_MS: u64 = 200;

/// TCP's first time-out, and the most it waits here.
const TIMEOUT_MS: u64 = 200;
const TIMEOUT_MS_MAX: u64 = 60_000;

#[derive(Default)]
struct Weather {
    lossy: AtomicBool,
    lost: AtomicU64,
    dice: AtomicU64,
}

pub(crate) struct LossyProxy {
    pub(crate) address: SocketAddr,
    weather: Arc<Weather>,
}

impl LossyProxy {
    /// In front of this address. It ends with the process of the test.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let weather =
            Arc::new(Weather { dice: AtomicU64::new(u64::from(address.port()) << 20 | 1), ..Weather::default() });
        let shared = weather.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(target) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let _ = to.set_nodelay(true);
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let weather = shared.clone();
                    std::thread::spawn(move || carry(from, to, &weather));
                }
            }
        });
        Self { address, weather }
    }

    pub(crate) fn become_lossy(&self) {
        self.weather.lossy.store(true, Ordering::Relaxed);
    }

    pub(crate) fn become_well(&self) {
        self.weather.lossy.store(false, Ordering::Relaxed);
    }

    /// How many packets were lost up to now.
    pub(crate) fn lost(&self) -> u64 {
        self.weather.lost.load(Ordering::Relaxed)
    }
}

impl Weather {
    /// Splitmix: as good as random here, and the same for no two threads.
    fn roll(&self, below: u64) -> u64 {
        let seed = self.dice.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % below
    }

    fn delay(&self) -> Duration {
        if !self.lossy.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let (mut ms, mut timeout) = (self.roll(JITTER_MS), TIMEOUT_MS);
        while self.roll(100) < LOST_PER_CENT && timeout < TIMEOUT_MS_MAX {
            self.lost.fetch_add(1, Ordering::Relaxed);
            ms += timeout;
            timeout *= 2;
        }
        Duration::from_millis(ms)
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, weather: &Weather) {
    let mut bytes = [0; 1400];
    while let Ok(count) = from.read(&mut bytes) {
        std::thread::sleep(weather.delay());
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
