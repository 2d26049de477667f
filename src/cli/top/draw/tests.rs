use super::super::app::{Step, View};
use super::super::ask::{Answer, Facts};
use super::*;
use crate::overview::{Now, Queue};
use crate::pb;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

fn server() -> pb::GetServerResponse {
    pb::GetServerResponse { leads: true, revision: 41, ..pb::GetServerResponse::default() }
}

/// An app that shows these facts of a view.
fn app(view: &View, facts: Facts) -> App {
    let mut app = App::new("127.0.0.1:7411", false);
    for (key, _, known) in View::bar() {
        if known == *view {
            press(&mut app, KeyCode::Char('g'));
            press(&mut app, KeyCode::Char(key));
        }
    }
    take(&mut app, facts);
    app
}

fn take(app: &mut App, facts: Facts) {
    let view = app.view().clone();
    app.take(Ok(Answer { view, facts, server: server() }));
}

fn press(app: &mut App, code: KeyCode) -> Step {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

/// The screen as text, a line each.
fn screen(app: &mut App) -> String {
    let mut terminal = Terminal::new(TestBackend::new(120, 24)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| (0..120).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..24).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

fn now() -> Now {
    Now {
        server: Some(Box::new(pb::GetServerResponse { leads: true, ..pb::GetServerResponse::default() })),
        pools: Some(vec![pb::Pool {
            name: "farm".into(),
            configured: true,
            enabled: true,
            leases: 3,
            free_slots: 1,
            waiting: 2,
            ..pb::Pool::default()
        }]),
        warnings: Vec::new(),
        trouble: Some((
            vec![pb::Resource {
                id: "res_1".into(),
                item: "b3".into(),
                pool: "farm".into(),
                state: pb::ResourceState::Suspect.into(),
                misses: 2,
                lease_ids: vec!["lse_1".into()],
                causes: vec![pb::Cause {
                    reason: "NO_ANSWER".into(),
                    detail: "a\u{1b}[2Jb".into(),
                    ..pb::Cause::default()
                }],
                ..pb::Resource::default()
            }],
            false,
        )),
        hits: Vec::new(),
        unmet: Vec::new(),
        broken: Some((Vec::new(), 0)),
    }
}

#[test]
fn now_says_what_is_wrong_who_is_hit_and_the_next_step() {
    let mut app = app(&View::Now, Facts::Now(now()));
    let shown = screen(&mut app);
    for text in [
        "Now: 1 need you",
        "▲ SUSPECT b3 in pool farm, no answer to 2 checks. NO_ANSWER a\\u{1b}[2Jb",
        "1 more leases",
        "checks are under way",
        "3 leased, 0 in cleaning, 1 free, 2 waiting",
        "wharfinger why res_1",
        "this server leads",
        "Broken in the last hour: no lease.",
    ] {
        // A cell may be clipped by its column.
        let begin: String = text.chars().take(20).collect();
        assert!(shown.contains(&begin) || text == "this server leads", "{text}\n{shown}");
    }
    assert!(shown.contains("LEADS · revision 41"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown}");
    // Enter opens the resource, and Esc comes back.
    assert_eq!(press(&mut app, KeyCode::Enter), Step::Read);
    assert_eq!(app.view(), &View::Resource("res_1".into()));
    assert!(screen(&mut app).contains("Reading"), "an answer to another view is not shown");
    assert_eq!(press(&mut app, KeyCode::Esc), Step::Read);
    assert_eq!(app.view(), &View::Now);
}

#[test]
fn a_reading_that_fails_leaves_the_last_one_with_its_time() {
    let mut app = app(&View::Now, Facts::Now(now()));
    app.take(Err("cannot reach 127.0.0.1:7411".into()));
    let shown = screen(&mut app);
    assert!(shown.contains("✕ as of ") && shown.contains(": cannot reach 127.0.0.1:7411"), "{shown}");
    assert!(shown.contains("SUSPECT"), "{shown}");
    take(&mut app, Facts::Now(now()));
    assert!(!screen(&mut app).contains("cannot reach"));
}

#[test]
fn the_life_of_a_resource_is_drawn_as_lanes_over_its_entries() {
    let entry = |seconds_ago: i64, kind: &str, lease: &str| pb::TimelineEntry {
        event: Some(pb::Event {
            at: Some(prost_types::Timestamp { seconds: crate::overview::seconds() - seconds_ago, nanos: 0 }),
            kind: kind.into(),
            actor: "wharfinger".into(),
            subject: if lease.is_empty() { "res_1".into() } else { lease.into() },
            resource_id: "res_1".into(),
            lease_id: lease.into(),
            ..pb::Event::default()
        }),
        ..pb::TimelineEntry::default()
    };
    let entries = vec![
        entry(400, "resource.ready", ""),
        entry(300, "lease.active", "lse_1"),
        entry(200, "resource.suspect", ""),
        entry(100, "lease.broken", "lse_1"),
    ];
    let mut app = app(&View::Now, Facts::Now(now()));
    press(&mut app, KeyCode::Enter);
    let resource = now().trouble.unwrap().0.remove(0);
    let story = pb::TimelineResponse { entries, ..pb::TimelineResponse::default() };
    take(&mut app, Facts::Resource(Box::new(resource), Some(story)));
    let shown = screen(&mut app);
    let lane = shown.lines().find(|line| line.starts_with("state")).unwrap();
    let (ready, doubt) = (lane.matches('█').count(), lane.matches('▲').count());
    assert!((50..60).contains(&ready) && (50..60).contains(&doubt), "{shown}");
    let order: Vec<usize> =
        ["lease.broken", "resource.suspect", "lease.active"].iter().map(|kind| shown.find(kind).unwrap()).collect();
    assert!(order.is_sorted(), "the newest entry is first: {shown}");
    assert_eq!(press(&mut app, KeyCode::Enter), Step::Read);
    assert_eq!(app.view(), &View::Lease("lse_1".into()));
}

#[test]
fn keys_go_jump_pause_and_quit() {
    let mut app = app(&View::Now, Facts::Now(now()));
    for (key, name, view) in View::bar() {
        press(&mut app, KeyCode::Char('g'));
        assert_eq!(press(&mut app, KeyCode::Char(key)), Step::Read, "{name}");
        assert_eq!(app.view(), &view);
    }
    press(&mut app, KeyCode::Char('g'));
    assert_eq!(press(&mut app, KeyCode::Char('x')), Step::Stay, "no such view");
    for (text, view) in [("b3", View::Resource("b3".into())), ("lse_9", View::Lease("lse_9".into()))] {
        press(&mut app, KeyCode::Char('/'));
        text.chars().for_each(|c| assert_eq!(press(&mut app, KeyCode::Char(c)), Step::Stay));
        assert!(screen(&mut app).contains(&format!("jump to: {text}")));
        assert_eq!(press(&mut app, KeyCode::Enter), Step::Read);
        assert_eq!(app.view(), &view);
    }
    press(&mut app, KeyCode::Char('?'));
    assert!(screen(&mut app).contains("quit"), "the keys");
    assert_eq!(press(&mut app, KeyCode::Char('q')), Step::Stay, "it closes the list of keys");
    assert_eq!(press(&mut app, KeyCode::Char('p')), Step::Stay);
    assert!(app.paused());
    assert_eq!(press(&mut app, KeyCode::Char('p')), Step::Read);
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Step::Quit);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Step::Quit);
}

#[test]
fn the_queue_is_in_the_order_of_service_and_rows_are_walked() {
    let lease = |id: &str| pb::Lease { id: id.into(), holder: format!("of {id}"), ..pb::Lease::default() };
    let said = |id: &str| pb::ExplainResponse {
        lease: Some(lease(id)),
        satisfiable: true,
        blockers: vec![pb::Blocker { code: "NO_SLOT".into(), ..pb::Blocker::default() }],
        ..pb::ExplainResponse::default()
    };
    let request = |id: &str, class_index, position| pb::QueuedRequest {
        class_index,
        position,
        lease: Some(lease(id)),
        no_likely_start: "FAR".into(),
        ..pb::QueuedRequest::default()
    };
    let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let start = pb::LikelyStart { earliest: span(240), latest: span(540), ..pb::LikelyStart::default() };
    let class = |wants: &str| pb::QueueClass { wants: wants.into(), requests: 9, leases: 9 };
    let page = pb::ListQueueResponse {
        classes: vec![class("pool p"), class("pool q")],
        requests: vec![
            pb::QueuedRequest { likely_start: Some(start), ..request("lse_b", 0, 1) },
            request("lse_a", 0, 2),
            request("lse_c", 1, 1),
        ],
        ..pb::ListQueueResponse::default()
    };
    let queue = Queue { pool: String::new(), page: Some(page), said: vec![said("lse_b")] };
    let mut app = app(&View::Queue(String::new()), Facts::Queue(queue));
    let shown = screen(&mut app);
    let order: Vec<usize> =
        ["of lse_b", "of lse_a", "of lse_c"].iter().map(|holder| shown.find(holder).unwrap()).collect();
    assert!(order.is_sorted() && shown.contains("NO_SLOT") && shown.contains("in 4 to 9 min"), "{shown}");
    for (key, row) in [(KeyCode::Down, 1), (KeyCode::End, 2), (KeyCode::Down, 2), (KeyCode::Up, 1), (KeyCode::Home, 0)]
    {
        press(&mut app, key);
        assert_eq!(app.row, row);
    }
    press(&mut app, KeyCode::End);
    assert!(screen(&mut app).contains("wharfinger explain lse_c"));
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.view(), &View::Lease("lse_c".into()));
}
