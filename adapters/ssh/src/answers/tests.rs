use super::*;

const ANSWER: Duration = Duration::from_millis(3000);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn after(took: impl IntoIterator<Item = u64>) -> (Answers, Surroundings) {
    let (answers, around) = (Answers::default(), Surroundings::default());
    took.into_iter().for_each(|took| answers.note(ms(took), &around));
    (answers, around)
}

fn silence(took: impl IntoIterator<Item = u64>) -> Silence {
    let (answers, around) = after(took);
    answers.silence(ANSWER, &around)
}

#[test]
fn a_host_of_which_nothing_is_known_has_the_time_of_the_configuration() {
    for known in [vec![], vec![1; 5]] {
        let limits = silence(known);
        assert_eq!(limits, Silence { late: ms(1000), doubt: ANSWER, missed: ANSWER });
    }
}

#[test]
fn a_host_that_answers_in_a_millisecond_is_in_doubt_after_half_a_second() {
    assert_eq!(silence(vec![1; 200]), Silence { late: ms(250), doubt: ms(500), missed: ms(1500) });
}

#[test]
fn one_late_answer_is_forgotten_within_seconds_and_many_are_not() {
    let clean = || vec![1; 500];
    let one = silence(clean().into_iter().chain([400]));
    assert!(one.doubt > ms(800) && one.doubt < ms(1500), "{one:?}");
    let forgotten = silence(clean().into_iter().chain([400]).chain(vec![1; 40]));
    assert!(forgotten.doubt < ms(700), "{forgotten:?}");
    let many = silence(clean().into_iter().chain([400, 1, 700, 250, 1, 1500, 300, 1]));
    assert!(many.doubt > ms(2000) && many.missed > ms(3000), "{many:?}");
    // A third of the answers late, as with a fifth of the packets lost.
    let lossy = silence((0..2000).map(|n| if n % 3 == 0 { 250 + n % 500 } else { 2 }));
    assert!(lossy.doubt > ms(2000) && lossy.missed > ms(3000), "{lossy:?}");
}

#[test]
fn a_host_that_came_back_from_a_long_silence_is_given_up_later_for_an_hour() {
    let clean = || vec![1; 500];
    let back = silence(clean().into_iter().chain([4000]).chain(vec![1; 200]));
    assert!(back.doubt < ms(600) && back.missed > ms(3700), "{back:?}");
    let later = silence(clean().into_iter().chain([4000]).chain(vec![1; 2 * 3600]));
    assert_eq!(later.missed, ms(1500), "{later:?}");
}

#[test]
fn a_far_host_is_measured_by_its_own_usual_time() {
    let far = silence((0..200).map(|n| 600 + n % 40));
    assert!(far.doubt > ms(900) && far.doubt < ms(1500), "{far:?}");
    // A way that became longer is learned.
    let moved = silence(std::iter::repeat_n(1, 300).chain((0..3000).map(|n| 400 + n % 20)));
    assert!(moved.doubt < ANSWER, "{moved:?}");
}

#[test]
fn the_times_of_the_configuration_bound_the_limits() {
    let (answers, around) = after(vec![1; 200]);
    let patient = answers.silence(ms(30_000), &around);
    assert_eq!(patient, Silence { late: ms(2500), doubt: ms(5000), missed: ms(15_000) });
    let hasty = answers.silence(ms(100), &around);
    assert_eq!((hasty.doubt, hasty.late), (ms(100), ms(100) / 3));
}

#[test]
fn late_neighbours_and_a_broker_that_oversleeps_buy_time() {
    let (answers, around) = after(vec![1; 200]);
    let other = Answers::default();
    other.note(ms(1), &around);
    (0..12).for_each(|_| other.note(ms(900), &around));
    let limits = answers.silence(ANSWER, &around);
    assert!(limits.doubt > ms(1500), "{limits:?}");

    let (answers, around) = after(vec![1; 200]);
    around.overslept(ms(10));
    assert_eq!(answers.silence(ANSWER, &around).doubt, ms(500), "the usual work of a scheduler");
    around.overslept(ms(200));
    let limits = answers.silence(ANSWER, &around);
    assert!(limits.doubt > ms(900), "{limits:?}");
    let begun = Instant::now();
    around.overslept_at(ms(30_000), begun);
    let paused = answers.silence(ANSWER, &around);
    assert_eq!((paused.doubt, paused.missed), (ANSWER, 3 * ANSWER));
    assert!(around.lock().own(begun + Duration::from_secs(60)) < ms(1), "it is forgotten");
}
