//! The listings of tenants and of the queue.

use super::*;
use crate::pb;

fn wanted(id: &str) -> pb::LeaseRequest {
    let selector = Some(pb::Selector { pool: "p".into(), ..Default::default() });
    pb::LeaseRequest { request_id: id.into(), selector, ..Default::default() }
}

#[tokio::test]
async fn a_tenant_sees_its_own_row_and_who_sees_all_sees_every_row() {
    let agent = || Roles::of(&[BuiltIn::Agent]);
    let callers =
        vec![("web", "ci-1", agent()), ("mobile", "ci-2", agent()), ("ops", "admin", Roles::of(&[BuiltIn::Admin]))];
    let (world, bearers) = world_of(vec![pool_config(1, 1, TRAITS)], callers).await;
    let lease =
        async |who: &Bearer| world.leader.lease.clone().lease(who.call(wanted("1"))).await.unwrap().into_inner();
    lease(&bearers[0]).await;
    let last = lease(&bearers[1]).await.lease.unwrap();
    assert_eq!(last.state(), pb::LeaseState::Queued);
    for server in [&world.leader, &world.follower] {
        let rows = async |who: &Bearer| {
            let request = pb::ListTenantsRequest { min_revision: last.revision };
            let answer = server.admin.clone().list_tenants(who.call(request)).await.unwrap().into_inner();
            assert!(answer.revision >= last.revision);
            let row = |row: pb::Tenant| (row.name, row.slots, row.waiting, row.max_slots);
            answer.tenants.into_iter().map(row).collect::<Vec<_>>()
        };
        let (web, mobile) = (("web".to_owned(), 1, 0, None), ("mobile".to_owned(), 0, 1, None));
        assert_eq!(rows(&bearers[0]).await, std::slice::from_ref(&web));
        assert_eq!(rows(&bearers[1]).await, std::slice::from_ref(&mobile));
        assert_eq!(rows(&bearers[2]).await, [mobile, web]);
    }
}

/// The requests of one page, and the token of the next: lease, place, what they want and how many want that.
type Seen = (Vec<(String, i32, String, i32)>, String);

async fn queue(server: &Server, who: &Bearer, request: pb::ListQueueRequest) -> Result<Seen, Status> {
    let told = server.lease.clone().list_queue(who.call(request)).await?.into_inner();
    let row = |row: pb::QueuedRequest| {
        let class = &told.classes[usize::try_from(row.class_index).unwrap()];
        assert!(row.likely_start.is_some() == row.no_likely_start.is_empty(), "{row:?}");
        (row.lease.unwrap().id, row.position, class.wants.clone(), class.requests)
    };
    Ok((told.requests.clone().into_iter().map(row).collect(), told.next_page_token))
}

#[tokio::test]
async fn a_tenant_sees_its_own_requests_in_the_queue_and_the_places_and_counts_of_all() {
    let agent = || Roles::of(&[BuiltIn::Agent]);
    let callers =
        vec![("web", "ci-1", agent()), ("mobile", "ci-2", agent()), ("ops", "admin", Roles::of(&[BuiltIn::Admin]))];
    let (world, bearers) = world_of(vec![pool_config(1, 1, TRAITS)], callers).await;
    let lease = async |who: &Bearer, id: &str| {
        world.leader.lease.clone().lease(who.call(wanted(id))).await.unwrap().into_inner().lease.unwrap()
    };
    let mut last = lease(&bearers[0], "1").await;
    let mut own: [Vec<String>; 2] = Default::default();
    for n in 0..5 {
        last = lease(&bearers[n % 2], &format!("2-{n}")).await;
        assert_eq!(last.state(), pb::LeaseState::Queued);
        own[n % 2].push(last.id.clone());
    }
    let first = || pb::ListQueueRequest { min_revision: last.revision, page_size: 2, ..Default::default() };
    for server in [&world.leader, &world.follower] {
        let all = async |who: &Bearer| {
            let (mut rows, mut request) = (Vec::new(), first());
            loop {
                let (page, next) = queue(server, who, request.clone()).await.unwrap();
                assert!(page.len() <= 2);
                rows.extend(page);
                if next.is_empty() {
                    return rows;
                }
                request.page_token = next;
            }
        };
        let whole = all(&bearers[2]).await;
        let places: Vec<i32> = whole.iter().map(|row| row.1).collect();
        assert_eq!(places, [1, 2, 3, 4, 5]);
        for (tenant, own) in own.iter().enumerate() {
            let rows = all(&bearers[tenant]).await;
            let expected: Vec<_> = whole.iter().filter(|row| own.contains(&row.0)).cloned().collect();
            assert_eq!((rows.len(), &rows), (own.len(), &expected));
            for (id, position, wants, requests) in rows {
                assert_eq!((&*wants, requests), ("pool p", 5));
                let request = pb::ExplainRequest { lease_id: id, min_revision: last.revision };
                let said = server.lease.clone().explain(bearers[tenant].call(request)).await.unwrap().into_inner();
                assert_eq!(said.position, position);
                assert!(said.likely_start.is_some() == said.no_likely_start.is_empty(), "{said:?}");
            }
        }
        // A token of another's page, one of nothing, and a pool that is not there.
        let foreign = pb::ListQueueRequest { page_token: own[1][0].clone(), ..first() };
        let refused = queue(server, &bearers[0], foreign).await.unwrap_err();
        let never = wharfinger_core::LeaseId::new(77).to_string();
        let unknown = queue(server, &bearers[0], pb::ListQueueRequest { page_token: never, ..first() }).await;
        assert_eq!(refused.message(), unknown.unwrap_err().message());
        for (request, expected) in [
            (pb::ListQueueRequest { page_token: "x".into(), ..first() }, "InvalidArgument INVALID_REQUEST"),
            (pb::ListQueueRequest { page_size: 1_001, ..first() }, "InvalidArgument INVALID_REQUEST"),
            (pb::ListQueueRequest { pool: "nothing".into(), ..first() }, "NotFound UNKNOWN_POOL"),
        ] {
            assert_eq!(outcome(queue(server, &bearers[0], request).await), expected);
        }
        let named = queue(server, &bearers[2], pb::ListQueueRequest { pool: "p".into(), page_size: 100, ..first() });
        assert_eq!(named.await.unwrap().0, whole);
    }
}
