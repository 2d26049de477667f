//! Limits of each address, before it is known who calls: connections, how fast they come, and calls whose proof is none.
//!
//! An address of IPv6 counts with its network of 64 bits, which one machine has as a rule. Addresses that stand for many callers (the
//! broker's own machine, a proxy, a NAT) can be exempt. What is remembered is bounded: an address that comes again after many others is new.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Maximum number of addresses in one half of the memory.
const HALF: usize = 32_768;
/// Seconds of connections, and minutes of failures, that may come at once.
const BURST: u32 = 4;
/// Maximum number of handshakes of one address at once: a quarter of all.
const HANDSHAKES: usize = 64;

/// Limits of one address. Zero: there is no such limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    /// Maximum number of connections at once.
    pub connections: u32,
    /// Maximum number of new connections in a second, in the long run. Four times as many may come at once.
    pub connections_per_second: u32,
    /// Maximum number of calls in a minute whose proof is wrong, in the long run. Four times as many may come at once.
    pub failures_per_minute: u32,
    /// Networks without limits.
    pub exempt: Vec<Network>,
}

impl Default for AddressLimits {
    fn default() -> Self {
        let own = ["127.0.0.0/8", "::1"].into_iter().filter_map(Network::parse).collect();
        Self { connections: 1_024, connections_per_second: 50, failures_per_minute: 20, exempt: own }
    }
}

/// A network of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The first address; IPv4 as its mapped one.
    first: u128,
    /// The bits that all addresses have in common, of 128.
    bits: u32,
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`. `None`: it is neither, or an address has bits behind those of its network.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let (length, offset) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let bits = match bits {
            None => length,
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok().filter(|bits| *bits <= length)?
            }
            Some(_) => return None,
        };
        let network = Self { first: mapped(address), bits: offset + bits };
        (network.first & network.mask() == network.first).then_some(network)
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - self.bits).unwrap_or(0)
    }

    /// Whether an address is in it.
    pub(crate) fn holds(self, address: IpAddr) -> bool {
        self.has(mapped(address))
    }

    /// Whether it has a great part of all addresses: less than 8 bits of IPv4 in common, or less than 16 of IPv6.
    pub(crate) fn is_wide(self) -> bool {
        let mapped = Ipv6Addr::from_bits(self.first).to_ipv4_mapped().is_some();
        self.bits < if mapped && self.bits >= 96 { 104 } else { 16 }
    }

    fn has(self, address: u128) -> bool {
        address & self.mask() == self.first
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The network that counts as one caller.
fn counted(address: u128) -> u128 {
    if Ipv6Addr::from_bits(address).to_ipv4_mapped().is_some() { address } else { address & (u128::MAX << 64) }
}

/// The limit that an address has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressLimit {
    /// It has as many connections as it may.
    Connections,
    /// Its connections come too fast.
    Rate,
}

impl AddressLimit {
    /// A stable code, in SCREAMING_SNAKE_CASE.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            AddressLimit::Connections => "ADDRESS_CONNECTIONS",
            AddressLimit::Rate => "ADDRESS_RATE",
        }
    }

    /// The words of the refusal.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            AddressLimit::Connections => {
                "this address has as many connections as [server.per_address] `connections` allows"
            }
            AddressLimit::Rate => {
                "connections of this address come faster than [server.per_address] `connections_per_second` allows"
            }
        }
    }
}

/// The addresses that the server hears of. Cheap to clone; the clones share their counters.
#[derive(Clone, Debug)]
pub(crate) struct Addresses(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: AddressLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Open connections. The limit of all connections bounds their number.
    open: HashMap<u128, Open>,
    newer: HashMap<u128, Recent>,
    older: HashMap<u128, Recent>,
}

#[derive(Debug)]
struct Open {
    connections: u32,
    handshakes: Arc<Semaphore>,
}

/// The latest acts of an address.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    connections: Bucket,
    failures: Bucket,
}

/// The time at which everything that was taken has come back. `None`: nothing was taken.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(Option<Instant>);

impl Bucket {
    /// Takes one of `burst`, of which one comes back in each `interval`. `Err`: the time until there is one.
    fn take(&mut self, interval: Duration, burst: u32, now: Instant) -> Result<(), Duration> {
        self.wait(interval, burst, now).map_or(Ok(()), Err)?;
        self.0 = Some(self.0.map_or(now, |full| full.max(now)) + interval);
        Ok(())
    }

    /// The time until there is one. `None`: there is one now.
    fn wait(self, interval: Duration, burst: u32, now: Instant) -> Option<Duration> {
        let taken = self.0?.saturating_duration_since(now);
        let most = interval * burst.saturating_sub(1);
        (taken > most).then(|| taken - most)
    }
}

impl State {
    fn recent(&mut self, key: u128) -> &mut Recent {
        let known = self.newer.get(&key).or_else(|| self.older.get(&key)).copied().unwrap_or_default();
        if self.newer.len() >= HALF && !self.newer.contains_key(&key) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.entry(key).or_insert(known)
    }
}

/// A connection of an address. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    shared: Arc<Shared>,
    key: u128,
    handshakes: Arc<Semaphore>,
}

impl AddressPlace {
    /// Waits until the address may begin another handshake.
    pub(crate) async fn handshake(&self) -> Option<OwnedSemaphorePermit> {
        self.handshakes.clone().acquire_owned().await.ok()
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(open) = state.open.get_mut(&self.key) {
            open.connections -= 1;
            if open.connections == 0 {
                state.open.remove(&self.key);
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The interval of failures. `None`: they are not limited.
    fn failures(&self) -> Option<(Duration, u32)> {
        let limit = self.limits.failures_per_minute;
        Duration::from_secs(60).checked_div(limit).map(|interval| (interval, limit.saturating_mul(BURST)))
    }

    /// `None`: the address has no limits.
    fn key(&self, address: IpAddr) -> Option<u128> {
        let address = mapped(address);
        (!self.limits.exempt.iter().any(|network| network.has(address))).then(|| counted(address))
    }
}

impl Addresses {
    pub(crate) fn new(limits: AddressLimits) -> Self {
        Self(Arc::new(Shared { limits, state: Mutex::default() }))
    }

    /// Takes a place for a new connection. `Ok(None)`: the address has no limits.
    pub(crate) fn enter(&self, address: IpAddr) -> Result<Option<AddressPlace>, AddressLimit> {
        let Some(key) = self.0.key(address) else { return Ok(None) };
        let AddressLimits { connections, connections_per_second: rate, .. } = self.0.limits;
        let mut state = self.0.state();
        if connections > 0 && state.open.get(&key).is_some_and(|open| open.connections >= connections) {
            return Err(AddressLimit::Connections);
        }
        if let Some(interval) = Duration::from_secs(1).checked_div(rate) {
            let taken = state.recent(key).connections.take(interval, rate.saturating_mul(BURST), Instant::now());
            taken.map_err(|_| AddressLimit::Rate)?;
        }
        let fresh = || Open { connections: 0, handshakes: Arc::new(Semaphore::new(HANDSHAKES)) };
        let open = state.open.entry(key).or_insert_with(fresh);
        open.connections += 1;
        let handshakes = open.handshakes.clone();
        drop(state);
        Ok(Some(AddressPlace { shared: self.0.clone(), key, handshakes }))
    }

    /// Counts a call whose proof is wrong.
    pub(crate) fn failed(&self, address: IpAddr) {
        let (Some(key), Some((interval, burst))) = (self.0.key(address), self.0.failures()) else { return };
        // Beyond the limit nothing is counted: the time until it may try again does not grow.
        let _ = self.0.state().recent(key).failures.take(interval, burst, Instant::now());
    }

    /// The time until the proofs of an address are looked at again. `None`: now.
    pub(crate) fn waits(&self, address: IpAddr) -> Option<Duration> {
        let (key, (interval, burst)) = (self.0.key(address)?, self.0.failures()?);
        let state = self.0.state();
        let recent = state.newer.get(&key).or_else(|| state.older.get(&key))?;
        recent.failures.wait(interval, burst, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits(connections: u32, connections_per_second: u32, failures_per_minute: u32) -> Addresses {
        Addresses::new(AddressLimits {
            connections,
            connections_per_second,
            failures_per_minute,
            ..AddressLimits::default()
        })
    }

    #[test]
    fn networks_are_read_and_have_their_addresses_alone() {
        for (text, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.1.2", "::ffff:10.1.1.1"][..],
                &["11.0.0.0", "9.255.255.255", "::a00:1"][..],
            ),
            ("192.0.2.7", &["192.0.2.7"], &["192.0.2.6"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::1", "2001:db8::1"]),
            ("2001:db8::/32", &["2001:db8::1", "2001:db8:ffff::"], &["2001:db9::"]),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
            ("::/0", &["::1", "127.0.0.1", "2001:db8::1"], &[]),
        ] {
            let network = Network::parse(text).unwrap();
            assert!(inside.iter().all(|address| network.has(mapped(ip(address)))), "{text}");
            assert!(!outside.iter().any(|address| network.has(mapped(ip(address)))), "{text}");
        }
        for wrong in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "::1/129",
            "x",
            "10.0.0.0/8 ",
            "host/8",
        ] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_a_maximum_of_connections_and_others_have_theirs() {
        let addresses = limits(2, 0, 0);
        let first = addresses.enter(ip("192.0.2.1")).unwrap();
        let _second = addresses.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(addresses.enter(ip("192.0.2.1")).err(), Some(AddressLimit::Connections));
        assert!(addresses.enter(ip("192.0.2.2")).is_ok());
        drop(first);
        assert!(addresses.enter(ip("192.0.2.1")).is_ok(), "a place that is left is free again");
        // One machine of IPv6 has a whole network.
        let _six = ["2001:db8::1", "2001:db8::2"].map(|address| addresses.enter(ip(address)).unwrap());
        assert_eq!(addresses.enter(ip("2001:db8::ffff:3")).err(), Some(AddressLimit::Connections));
        assert!(addresses.enter(ip("2001:db8:0:1::1")).is_ok());
        // The broker's own machine: whatever comes by a proxy on it, too.
        let _own: Vec<_> = (0..9).map(|_| addresses.enter(ip("127.0.0.1")).unwrap()).collect();
        assert!(limits(0, 0, 0).enter(ip("192.0.2.1")).is_ok(), "zero is no limit");
    }

    #[tokio::test(start_paused = true)]
    async fn connections_of_one_address_come_at_a_rate() {
        let addresses = limits(0, 10, 0);
        let come = |address: &str| (0..100).filter(|_| addresses.enter(ip(address)).is_ok()).count();
        assert_eq!((come("192.0.2.1"), come("192.0.2.1"), come("192.0.2.2")), (40, 0, 40));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(come("192.0.2.1"), 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(come("192.0.2.1"), 40, "no more than that at once");
        assert_eq!(addresses.enter(ip("192.0.2.1")).err(), Some(AddressLimit::Rate));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_of_one_address_are_looked_at_for_so_long() {
        let addresses = limits(0, 0, 20);
        let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..79 {
            addresses.failed(bad);
        }
        assert_eq!(addresses.waits(bad), None);
        for _ in 0..10_000 {
            addresses.failed(bad);
        }
        let wait = addresses.waits(bad).unwrap();
        assert!(wait <= Duration::from_secs(3), "{wait:?}: it does not grow with what comes meanwhile");
        assert_eq!((addresses.waits(good), addresses.waits(ip("127.0.0.1"))), (None, None));
        tokio::time::advance(wait).await;
        assert_eq!(addresses.waits(bad), None);
        addresses.failed(bad);
        assert!(addresses.waits(bad).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_failures_is_bounded_and_keeps_a_persistent_address() {
        let addresses = limits(2, 50, 1);
        let bad = ip("192.0.2.1");
        for number in 0..300_000_u32 {
            drop(addresses.enter(IpAddr::V4(number.into())));
            if number % 10_000 == 0 {
                for _ in 0..4 {
                    addresses.failed(bad);
                }
            }
            assert!(addresses.waits(bad).is_some(), "{number}");
        }
        let state = addresses.0.state();
        assert!(state.newer.len() <= HALF && state.older.len() <= HALF && state.open.is_empty());
    }

    #[tokio::test]
    async fn one_address_has_a_share_of_the_handshakes() {
        let addresses = limits(0, 0, 0);
        let place = addresses.enter(ip("192.0.2.1")).unwrap().unwrap();
        let mut permits = Vec::new();
        for _ in 0..HANDSHAKES {
            permits.push(place.handshake().await.unwrap());
        }
        let mut next = Box::pin(place.handshake());
        assert!(tokio::time::timeout(Duration::from_millis(10), &mut next).await.is_err());
        let other = addresses.enter(ip("192.0.2.2")).unwrap().unwrap();
        assert!(other.handshake().await.is_some());
        permits.pop();
        assert!(tokio::time::timeout(Duration::from_secs(5), next).await.unwrap().is_some());
    }
}
