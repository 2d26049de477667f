//! The rule of doubt and evidence over simulated days: pings, new connections and checks over a model of TCP, on a network
//! that loses packets in bursts, short and frequent ones on one link, longer and rare ones on another.
//!
//! Six days of a host in each run; with WHARFINGER_LONG=1 24 days of a farm of twenty.

use super::*;

const ANSWER: f64 = 3.0;
/// Of the broker, by default.
const RETRY: f64 = 0.5;
const MISSES: u32 = 3;
const OVER: f64 = 3.0;
const CONNECT: f64 = 10.0;
/// From one attempt at a connection to the next beside it.
const ATTEMPTS: u32 = 5;
const NEXT: f64 = 0.5;
/// From one ping to the next.
const PULSE: f64 = 0.5;

/// Xorshift: the same numbers in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn about(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.roll()).ln()
    }
}

/// A link that is well and, from time to time, loses many packets for a while (Gilbert and Elliott).
struct Link {
    loss: (f64, f64),
    /// Mean times of both.
    lasts: (f64, f64),
    bad: bool,
    until: f64,
}

impl Link {
    fn new(loss: (f64, f64), lasts: (f64, f64)) -> Self {
        Self { loss, lasts, bad: true, until: 0.0 }
    }

    /// Never goes back: a short look ahead sees the state of now.
    fn loss(&mut self, now: f64, dice: &mut Dice) -> f64 {
        while now >= self.until {
            self.bad = !self.bad;
            self.until = now + dice.about(if self.bad { self.lasts.1 } else { self.lasts.0 });
        }
        if self.bad { self.loss.1 } else { self.loss.0 }
    }
}

struct World {
    dice: Dice,
    own: Link,
    common: Link,
    jitter: f64,
    /// From then on nothing answers.
    dead: f64,
}

impl World {
    fn lost(&mut self, now: f64) -> bool {
        let passes = (1.0 - self.own.loss(now, &mut self.dice)) * (1.0 - self.common.loss(now, &mut self.dice));
        self.dice.roll() >= passes
    }

    /// When a segment that is sent now is there.
    fn there(&mut self, now: f64, timeout: f64) -> f64 {
        let (mut at, mut wait) = (now, timeout);
        while self.lost(at) {
            at += wait;
            wait *= 2.0;
            if at - now > 120.0 {
                break;
            }
        }
        at + 0.0005 + self.jitter * self.dice.roll()
    }

    /// There and back.
    fn answer(&mut self, now: f64, timeout: f64) -> f64 {
        if now >= self.dead {
            return f64::INFINITY;
        }
        let there = self.there(now, timeout);
        let back = self.there(there, timeout);
        if back >= self.dead { f64::INFINITY } else { back }
    }

    /// When the first of the attempts has shown the key: TCP, banners, the exchange.
    fn key(&mut self, now: f64) -> f64 {
        let mut first = f64::INFINITY;
        let mut round = now;
        while round < now + 4.0 * CONNECT {
            for attempt in 0..ATTEMPTS {
                let begun = round + f64::from(attempt) * NEXT;
                let connected = self.answer(begun, 1.0);
                let banner = self.answer(connected, 0.2);
                let key = self.answer(banner, 0.2);
                if key < round + CONNECT {
                    first = first.min(key);
                }
            }
            round += CONNECT;
            if first < round {
                break;
            }
        }
        first
    }
}

#[derive(Debug, Default)]
struct Tally {
    asked: u64,
    late: u64,
    doubts: u64,
    broken: u64,
    /// From the death to the doubt and to the break, in seconds.
    found: Option<(f64, f64)>,
}

/// One host from 0 to the end, or until it is given up.
fn host(world: &mut World, around: &Surroundings, answers: &Answers, from: f64, to: f64, tally: &mut Tally) {
    let mut now = from;
    while now < to {
        tally.asked += 1;
        let limits = answers.silence(Duration::from_secs_f64(ANSWER), around);
        let (late, doubt) = (limits.late.as_secs_f64(), limits.doubt.as_secs_f64());
        let missed = limits.missed.as_secs_f64();
        let kept = world.answer(now, 0.2);
        if kept <= now + late {
            answers.note(Duration::from_secs_f64(kept - now), around);
            now += PULSE.max(kept - now);
            continue;
        }
        tally.late += 1;
        let alive = kept.min(world.key(now + late));
        if alive <= now + doubt {
            answers.note(Duration::from_secs_f64(alive - now), around);
            now += PULSE.max(alive - now);
            continue;
        }
        tally.doubts += 1;
        let doubted = now + doubt;
        let (mut asked, mut misses) = (doubted, 1);
        let gone = loop {
            if alive <= asked + missed {
                break None;
            }
            asked += missed;
            misses += 1;
            if misses >= MISSES && asked - doubted >= OVER {
                break Some(asked);
            }
            asked += RETRY;
        };
        if let Some(gone) = gone {
            tally.broken += 1;
            if world.dead.is_finite() {
                tally.found = Some((doubted - world.dead, gone - world.dead));
                return;
            }
            now = gone;
            continue;
        }
        answers.note(Duration::from_secs_f64(alive - now), around);
        now = alive + PULSE;
    }
}

/// Hosts whose own link, and whose common one, lose packets in bursts.
#[test]
fn days_of_lossy_bursts_break_nothing() {
    let long = std::env::var("WHARFINGER_LONG").is_ok_and(|v| v == "1");
    let (hosts, days) = if long { (20, 24.0) } else { (4, 1.5) };
    let mut all = Tally::default();
    for number in 0..hosts {
        let mut world = World {
            dice: Dice(0x9E37_79B9_7F4A_7C15 ^ (number + 1)),
            own: Link::new((0.0005, 0.3), (600.0, 20.0)),
            common: Link::new((0.0001, 0.3), (3600.0, 30.0)),
            jitter: 0.003,
            dead: f64::INFINITY,
        };
        let (around, answers) = (Surroundings::default(), Answers::default());
        host(&mut world, &around, &answers, 0.0, days * 86_400.0, &mut all);
    }
    println!("TABLE | {hosts} hosts over {days} days, bursts of 30 % loss | {all:?}");
    assert_eq!(all.broken, 0, "{all:?}");
    assert!(all.asked > 1_000_000 && all.late > 1_500, "{all:?}");
}

/// Two packets in five are lost all the time, and each takes up to 200 ms.
#[test]
fn two_in_five_lost_for_hours_breaks_nothing() {
    let mut all = Tally::default();
    for number in 0..20 {
        let mut world = World {
            dice: Dice(0xD1B5_4A32_D192_ED03 ^ (number + 1)),
            own: Link::new((0.0, 0.4), (10.0, 1e9)),
            common: Link::new((0.0, 0.0), (1e9, 1.0)),
            jitter: 0.2,
            dead: f64::INFINITY,
        };
        let (around, answers) = (Surroundings::default(), Answers::default());
        host(&mut world, &around, &answers, 0.0, 3600.0, &mut all);
    }
    println!("TABLE | 20 hosts, an hour each, 40 % loss and 200 ms jitter | {all:?}");
    assert_eq!(all.broken, 0, "{all:?}");
}

/// A host that dies, on a network that is well, and on one that has lost a packet now and then.
#[test]
fn a_death_is_found_in_time() {
    for (name, loss) in [("clean", 0.0), ("one in 2,000 lost", 0.0005)] {
        let mut found = Vec::new();
        for number in 0..400 {
            let mut world = World {
                dice: Dice(0xA076_1D64_78BD_642F ^ (number + 1)),
                own: Link::new((loss, loss), (1e9, 1.0)),
                common: Link::new((0.0, 0.0), (1e9, 1.0)),
                jitter: 0.002,
                dead: f64::INFINITY,
            };
            let (around, answers) = (Surroundings::default(), Answers::default());
            let mut tally = Tally::default();
            let dead = 600.0 + world.dice.roll() * 10.0;
            host(&mut world, &around, &answers, 0.0, dead, &mut tally);
            world.dead = dead;
            // The first ping after it, at some phase.
            let phase = world.dice.roll() * PULSE;
            host(&mut world, &around, &answers, dead + phase, dead + 100.0, &mut tally);
            found.push(tally.found.expect("it is given up"));
        }
        let at = |of: fn(&(f64, f64)) -> f64| {
            let mut spans: Vec<f64> = found.iter().map(of).collect();
            spans.sort_by(f64::total_cmp);
            (spans[spans.len() / 2], spans[spans.len() * 99 / 100])
        };
        let (told, broken) = (at(|one| one.0), at(|one| one.1));
        println!(
            "TABLE | a death, {name} | told: median {:.2}, p99 {:.2} s | BROKEN: median {:.2}, p99 {:.2} s",
            told.0, told.1, broken.0, broken.1
        );
        assert!(told.1 <= 1.5 && broken.1 <= 6.0, "{name}: told {told:?}, broken {broken:?}");
    }
}
