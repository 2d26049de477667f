//! The listing of tenants.

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
