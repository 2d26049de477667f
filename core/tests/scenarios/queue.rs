//! The queue in the order of service: places, pages, scopes, and what a read of it costs.

use crate::shares::{by, end, farm, of, weight};
use crate::world::{START, World, inventory, labels, made_at_will, want, want_by};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wharfinger_core::{
    AdminVerb, Caller, Core, Input, LeaseId, LeaseRequest, Limits, QueuePage, QueuePlace, Scope, Selector, Snapshot,
};

/// All of the queue in pages of this size, and what each page says of its classes.
fn all(w: &World, pool: Option<&str>, scope: &Scope, room: usize) -> Vec<(LeaseId, u32, String, u32)> {
    let view = w.core.view(scope);
    let (mut rows, mut next): (Vec<_>, Option<QueuePlace>) = (Vec::new(), None);
    for _ in 0..1_000 {
        let page = view.queue(pool, next.as_ref(), room, w.now);
        assert!(page.rows.len() <= room);
        let told = |row: &wharfinger_core::QueueRow| {
            let class = &page.classes[row.class];
            (row.lease.id, row.position, class.wants.clone(), class.requests)
        };
        rows.extend(page.rows.iter().map(told));
        next = page.next;
        if next.is_none() {
            return rows;
        }
    }
    panic!("the pages never end");
}

/// Several tenants, priorities, groups and selectors that all wait: no machine is made ready.
fn crowd() -> (World, Vec<LeaseId>) {
    let mut hosts = inventory("hosts", &["h1", "h2", "h3", "h4"]);
    for item in hosts.inventory.iter_mut().flatten() {
        item.labels = labels(&[("ram", "large")]);
    }
    let mut w = World::new(vec![hosts, made_at_will("others", 9)]);
    w.set_tenants(&[("web", weight(3)), ("*", weight(1))]);
    let mut leases = Vec::new();
    for n in 0..60_u32 {
        let tenant = ["web", "mobile", "desk"][(n % 7 % 3) as usize];
        let selector = match n % 5 {
            0 => Selector::pool("others"),
            1 => Selector { labels: labels(&[("ram", "large")]), ..Selector::pool("hosts") },
            _ => Selector::pool("hosts"),
        };
        let count = if n % 11 == 0 { 3 } else { 1 };
        let request = LeaseRequest { priority: i32::from(n % 13 == 0), ..want_by(selector, count) };
        leases.push(w.ask_all(by(tenant, request))[0]);
    }
    (w, leases)
}

#[test]
fn each_request_stands_at_the_place_that_explain_says_whatever_the_size_of_the_pages() {
    let (w, leases) = crowd();
    for room in [1, 7, 1_000] {
        let rows = all(&w, None, &Scope::All, room);
        assert_eq!(rows.len(), leases.len());
        assert_eq!(rows.iter().map(|row| row.0).collect::<BTreeSet<_>>(), leases.iter().copied().collect());
        for (id, position, wants, _) in &rows {
            let said = w.core.explain(*id, w.now, &Scope::All).unwrap();
            assert_eq!(*position, said.position, "{id} in {wants}");
        }
        // A class is in one piece, from its first place to its last.
        let mut classes: Vec<(String, Vec<u32>)> = Vec::new();
        for (_, position, wants, requests) in &rows {
            match classes.last_mut().filter(|(last, _)| last == wants) {
                Some((_, places)) => places.push(*position),
                None => classes.push((wants.clone(), vec![*position])),
            }
            assert!(*requests >= *position);
        }
        let names: BTreeSet<&String> = classes.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), classes.len(), "{classes:?}");
        for (name, places) in &classes {
            assert_eq!(*places, (1..=places.len() as u32).collect::<Vec<_>>(), "{name}");
        }
        assert!(
            names.contains(&"pool hosts, ram=large".to_owned()) && names.iter().any(|name| name.starts_with("3 × "))
        );
    }
}

#[test]
fn a_page_goes_on_after_a_request_that_left_the_queue_meanwhile() {
    let mut w = farm(1);
    let first = w.ask(by("web", want("hosts")));
    let waiting: Vec<LeaseId> = (0..6).map(|n| w.ask(by(["web", "mobile"][n % 2], want("hosts")))).collect();
    let order: Vec<LeaseId> = all(&w, None, &Scope::All, 100).into_iter().map(|row| row.0).collect();
    assert_eq!(order.iter().collect::<BTreeSet<_>>(), waiting.iter().collect());
    // The first of the line is served, the third one gives up. The next page begins behind each of them.
    let after = |w: &World, id: LeaseId| {
        let view = w.core.view(&Scope::All);
        let place = view.queue_place(id).unwrap();
        view.queue(None, Some(&place), 100, w.now).rows.iter().map(|row| row.lease.id).collect::<Vec<_>>()
    };
    assert_eq!(after(&w, order[2]), order[3..]);
    end(&mut w, order[2]);
    // The share of its tenant is smaller without it, so that the order of those behind may be another.
    let set = |ids: &[LeaseId]| ids.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!((w.state(order[2]), set(&after(&w, order[2]))), ("CANCELLED", set(&order[3..])));
    end(&mut w, first);
    let served = *order.iter().find(|id| w.state(**id) == "ACTIVE").unwrap();
    let rest: Vec<LeaseId> = all(&w, None, &Scope::All, 100).into_iter().map(|row| row.0).collect();
    assert_eq!((rest.len(), after(&w, served)), (4, rest));
    // A reader who does not see the lease cannot begin there.
    let stranger = Scope::Tenant(Arc::from("desk"));
    assert!(w.core.view(&stranger).queue_place(order[3]).is_none());
    assert!(w.core.view(&Scope::All).queue_place(LeaseId::new(7)).is_none());
}

#[test]
fn a_tenant_has_its_own_requests_and_of_others_the_counts() {
    let (w, leases) = crowd();
    for tenant in ["web", "mobile"] {
        let scope = Scope::Tenant(Arc::from(tenant));
        let rows = all(&w, None, &scope, 5);
        let own: BTreeSet<LeaseId> = leases.iter().copied().filter(|id| &*w.row(*id).spec.tenant == tenant).collect();
        assert_eq!(rows.iter().map(|row| row.0).collect::<BTreeSet<_>>(), own);
        for (id, position, _, requests) in rows {
            let said = w.core.explain(id, w.now, &scope).unwrap();
            assert_eq!(position, said.position);
            assert!(requests >= position, "the places and counts are those of all tenants");
        }
    }
    let nobody = Scope::Tenant(Arc::from("nobody"));
    let page = w.core.view(&nobody).queue(None, None, 100, w.now);
    assert!(page.rows.is_empty() && page.classes.is_empty(), "a class of others alone is not there: {page:?}");
    let own = Scope::Own { tenant: Arc::from("web"), principal: Arc::from("someone else") };
    assert!(all(&w, None, &own, 5).is_empty());
}

#[test]
fn a_pool_has_the_requests_that_it_could_serve() {
    let (mut w, leases) = crowd();
    let any = w.ask(by("web", want_by(Selector::default(), 1)));
    let rows: BTreeSet<LeaseId> = all(&w, Some("others"), &Scope::All, 4).into_iter().map(|row| row.0).collect();
    let named = leases.iter().copied().filter(|id| w.row(*id).spec.selector.pool.as_deref() == Some("others"));
    assert_eq!(rows, named.chain([any]).collect());
    assert!(all(&w, Some("no such pool"), &Scope::All, 4).is_empty());
    assert!(w.core.view(&Scope::All).has_pool("others") && !w.core.view(&Scope::All).has_pool("no such pool"));
}

/// The copies of a cordoned pool's hosts and the requests of clients stand in one class.
#[test]
fn the_brokers_own_requests_have_the_places_that_explain_says() {
    let pool = wharfinger_core::PoolConfig { min_ready: 1, ..inventory("hosts", &["h1"]) };
    let mut w = World::new(vec![pool, crate::world::copies("copies", "hosts", 9)]);
    w.all_works();
    w.admin(AdminVerb::CordonPool(Arc::from("hosts"))).unwrap();
    for n in 0..4 {
        w.ask(by("web", want("copies")));
        w.ask(by(["web", "mobile"][n % 2], want("hosts")));
    }
    let rows = all(&w, Some("hosts"), &Scope::All, 3);
    let own = rows.iter().filter(|row| w.row(row.0).spec.child.is_some()).count();
    assert!(own > 0 && rows.len() == own + 4, "{rows:?}");
    for (id, position, ..) in &rows {
        assert_eq!(*position, w.core.explain(*id, w.now, &Scope::All).unwrap().position, "{id}");
    }
}

/// The shortest times: of a page at the head of a queue, of one of 2 and one of 200 rows near its end, and of a read for one whose
/// only request is the last.
#[expect(clippy::disallowed_methods, reason = "it measures what the core takes")]
fn cost(waiting: u32) -> [Duration; 4] {
    let limits = Limits { queue: 1_000_000, ..Limits::default() };
    let mut core = Core::recover(Snapshot::default(), vec![inventory("hosts", &["h1", "h2"])], limits, START);
    let mut ask = |n: u32, caller: Caller| {
        let request = LeaseRequest { request_id: Arc::from(format!("request-{n}")), caller, ..want("hosts") };
        core.step(START, Input::Lease(request)).unwrap();
        core.take_batch();
    };
    for n in 0..waiting {
        ask(n, of(["web", "mobile"][(n % 2) as usize]));
    }
    ask(waiting, of("last"));
    let last = Scope::Tenant(Arc::from("last"));
    let place = core.leases(None).nth(waiting as usize - 500).map(|lease| lease.id);
    let place = core.view(&Scope::All).queue_place(place.unwrap()).unwrap();
    let time = |rows: usize, read: &dyn Fn() -> QueuePage| {
        let one = || {
            let begun = Instant::now();
            let page = read();
            assert!(page.rows.len() == rows && page.next.is_some(), "{} rows", page.rows.len());
            begun.elapsed()
        };
        (0..5).map(|_| one()).min().unwrap()
    };
    let all = core.view(&Scope::All);
    [
        time(100, &|| all.queue(None, None, 100, START)),
        time(2, &|| all.queue(None, Some(&place), 2, START)),
        time(200, &|| all.queue(None, Some(&place), 200, START)),
        // Among the first 5,000 of the line there is none of this tenant but one with a small share.
        time(1, &|| core.view(&last).queue(None, None, 100, START)),
    ]
}

#[test]
fn a_page_of_a_long_queue_costs_no_walk_for_each_row() {
    let (small, large) = (cost(6_000), cost(96_000));
    println!("6,000 wait: {small:?}; 96,000 wait: {large:?}");
    // Sixteen times the requests.
    assert!(large[0] < small[0] * 6, "the head takes {:?} with 6,000, {:?} with 96,000", small[0], large[0]);
    assert!(large[3] < small[3] * 6, "a read is bounded: {:?} with 6,000, {:?} with 96,000", small[3], large[3]);
    // A hundred times the rows, and one walk over what is before them.
    assert!(large[2] < large[1] * 20, "near the end 2 rows take {:?}, 200 take {:?}", large[1], large[2]);
}
