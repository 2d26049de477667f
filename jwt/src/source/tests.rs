use super::*;

/// A set with one Ed25519 key for each of these names.
fn set(kids: &[&str]) -> KeySet {
    let key = |kid: &&str| format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{}"}}"#, "A".repeat(43));
    let keys = kids.iter().map(key).collect::<Vec<_>>().join(",");
    KeySet::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes()).unwrap()
}

const DAY: Duration = Duration::from_secs(86_400);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_place_that_fails_is_asked_again_less_and_less_often_and_one_that_answers_within_bounds() {
    let mut pace = Pace::new();
    let waits: Vec<u64> = (0..8).map(|_| pace.wait(None).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    for (said, wait) in [(None, 300), (Some(0), 300), (Some(900), 900), (Some(86_400), 3600)] {
        assert_eq!(pace.wait(Some(said.map(seconds))), seconds(wait), "{said:?}");
    }
    assert_eq!(pace.wait(None), seconds(1), "a success ends the row of failures");
    for _ in 0..100 {
        assert!((seconds(90)..=seconds(100)).contains(&jittered(seconds(100))));
    }
}

#[test]
fn keys_stay_while_their_place_is_down_until_they_are_too_old() {
    let now = Instant::now();
    let mut state = State::new(now);
    assert!(state.keys(DAY, now).is_none() && state.fetching);
    state.end(Some(set(&["a"])), seconds(300), now);
    let generation = state.generation;
    for hour in 1..24 {
        state.end(None, seconds(60), now + seconds(3600 * hour));
        assert!(state.keys(DAY, now + seconds(3600 * hour)).is_some(), "hour {hour}");
    }
    assert!(state.keys(DAY, now + DAY).is_some());
    assert!(state.keys(DAY, now + DAY + seconds(1)).is_none());
    assert_eq!((state.generation, state.ended, state.succeeded), (generation, 24, 1));
    // The same keys again are no change; a key that is gone is one.
    state.end(Some(set(&["a"])), seconds(300), now + DAY * 2);
    assert_eq!(state.generation, generation);
    state.end(Some(set(&["b"])), seconds(300), now + DAY * 2);
    assert_eq!(state.generation, generation + 1);
    assert!(state.keys(DAY, now + DAY * 2).is_some_and(|keys| keys.get(Some("a")).is_none()));
}

#[test]
fn a_key_that_is_not_known_makes_one_fetch_in_thirty_seconds_whatever_is_sent() {
    let start = Instant::now();
    let mut state = State::new(start);
    state.end(Some(set(&["a"])), seconds(300), start);
    let mut misses = Misses::default();
    let mut fetches = 0;
    for tick in 0..10_000 {
        // 10,000 names in ten seconds, and the fetch takes one of them.
        let now = start + Duration::from_millis(tick);
        match misses.judge(Some(&format!("random {tick}")), &state, now) {
            Look::Fetch => {
                fetches += 1;
                state.fetching = true;
            }
            Look::Wait => assert!(tick < 1000, "{tick}"),
            Look::Not => assert!(tick >= 1000, "{tick}"),
        }
        if tick == 999 {
            let before = state.clone();
            state.end(Some(set(&["a"])), seconds(300), now);
            for name in 0..5000 {
                misses.note(Some(&format!("random {name}")), &before, &state, now);
            }
        }
    }
    assert_eq!(fetches, 1);
    assert_eq!(misses.absent.len(), MAX_ABSENT);
    // A name that is known not to be there asks for nothing for a minute, another one after half a minute.
    let later = start + seconds(32);
    assert_eq!(misses.judge(Some("random 0"), &state, later), Look::Not);
    assert_eq!(misses.judge(Some("new"), &state, later), Look::Fetch);
    let before = state.clone();
    state.end(Some(set(&["a", "new"])), seconds(300), later);
    misses.note(Some("new"), &before, &state, later);
    assert!(!misses.absent.contains_key("new"), "the fetch brought it");
    assert_eq!(misses.judge(Some("random 0"), &state, start + seconds(63)), Look::Fetch);
}

#[test]
fn a_lookup_whose_fetch_fails_does_not_make_the_key_known_as_absent() {
    let now = Instant::now();
    let mut state = State::new(now);
    state.end(Some(set(&["a"])), seconds(300), now);
    let mut misses = Misses::default();
    let before = state.clone();
    assert_eq!(misses.judge(Some("b"), &state, now), Look::Fetch);
    state.end(None, seconds(1), now);
    misses.note(Some("b"), &before, &state, now);
    assert!(misses.absent.is_empty());
    // A fetch that is under way anyway is waited for.
    state.fetching = true;
    assert_eq!(misses.judge(Some("b"), &state, now + seconds(1)), Look::Wait);
}
