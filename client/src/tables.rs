//! The tables of behaviours that all clients pass: `tests/clients/*.json` of the repository.

use crate::address::parse_addresses;
use crate::balancer::is_here;
use crate::testing::{Broker, lease};
use crate::{Client, ClientError, ClientOptions, Follow, LeaseStatus, pb};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The cases of a table.
fn cases(table: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients").join(format!("{table}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    let table: Value = serde_json::from_str(&text).unwrap();
    let cases = table["cases"].as_array().unwrap().clone();
    assert!(cases.len() > 5);
    cases
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn addresses() {
    for case in cases("addresses") {
        let text = case["text"].as_str().unwrap();
        match (parse_addresses(text, &ClientOptions::default()), case["servers"].as_array()) {
            (Ok(found), Some(wanted)) => {
                assert_eq!(found.len(), wanted.len(), "{text}");
                for (found, wanted) in found.iter().zip(wanted) {
                    assert_eq!(found.authority(), wanted["authority"].as_str().unwrap(), "{text}");
                    assert_eq!(found.is_private(), wanted["private"].as_bool().unwrap(), "{text}");
                    assert_eq!(is_here(&found.authority()), wanted["here"].as_bool().unwrap(), "{text}");
                }
            }
            (Err(ClientError::Address(_)), None) => {}
            (found, wanted) => panic!("{text}: {found:?}, and not {wanted:?}"),
        }
    }
}

#[test]
fn errors() {
    for case in cases("errors") {
        let code = Code::from_i32(i32::try_from(case["number"].as_i64().unwrap()).unwrap());
        let acts = match ClientError::from(Status::new(code, "x")) {
            ClientError::Request(_) => "request",
            ClientError::NotFound(_) => "not_found",
            ClientError::State(_) => "state",
            ClientError::Capacity(_) => "capacity",
            ClientError::Resync(_) => "resync",
            ClientError::Unavailable(_) => "unavailable",
            ClientError::Bug(_) => "bug",
            other => panic!("{code:?}: {other:?}"),
        };
        assert_eq!(acts, case["acts"].as_str().unwrap(), "{code:?}");
    }
}

#[tokio::test]
async fn leases() {
    let at = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let client = Client::connect_lazy("127.0.0.1:1", ClientOptions::default()).unwrap();
    for case in cases("lease") {
        let mut lease = pb::Lease {
            state: i32::try_from(case["state"].as_i64().unwrap()).unwrap(),
            active_at: None,
            ended_at: None,
            ..lease(1, pb::LeaseState::Unspecified)
        };
        for field in words(&case["has"]) {
            match field.as_str() {
                "active_at" => lease.active_at = at,
                "ended_at" => lease.ended_at = at,
                "ends_at" => lease.ends_at = at,
                "doubt" => lease.doubt = Some(pb::Doubt::default()),
                other => panic!("{other}"),
            }
        }
        let status = match &*client.keep(lease).status().borrow() {
            LeaseStatus::Waiting(_) => "waiting",
            LeaseStatus::Active(_) => "active",
            LeaseStatus::Doubt(_) => "doubt",
            LeaseStatus::EndsAt(..) => "ends",
            LeaseStatus::Lost(_) => "lost",
        };
        assert_eq!(status, case["status"].as_str().unwrap(), "{case}");
    }
}

/// Servers that do what a case says, and their addresses.
async fn servers(wanted: &[Value]) -> (Vec<Broker>, Vec<SocketAddr>) {
    let (mut brokers, mut addresses) = (Vec::new(), Vec::new());
    for server in wanted {
        if server["does"] == "is dead" {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            addresses.push(listener.local_addr().unwrap());
        } else {
            let broker = Broker::start().await;
            addresses.push(broker.address);
            brokers.push(broker);
        }
    }
    for broker in &brokers {
        let index = addresses.iter().position(|address| *address == broker.address).unwrap();
        let server = &wanted[index];
        let refusal = |reason: &str, leader: Option<String>| {
            let metadata: std::collections::HashMap<String, String> =
                leader.into_iter().map(|leader| ("leader".to_owned(), leader)).collect();
            let mut details = ErrorDetails::with_error_info(reason, "wharfinger", metadata);
            details.set_retry_info(Some(Duration::from_millis(1)));
            Status::with_error_details(Code::Unavailable, reason, details)
        };
        let answer = match server["does"].as_str().unwrap() {
            "leads" => {
                let found = pb::Lease { slot: i32::try_from(index).unwrap(), ..lease(1, pb::LeaseState::Active) };
                Ok(pb::GetResponse { lease: Some(found), revision: 0 })
            }
            "follows" => {
                let known = server["leader"].as_u64().map(|at| format!("http://{}", addresses[at as usize]));
                Err(refusal("NOT_LEADER", known.or_else(|| server["leader"].as_str().map(String::from))))
            }
            "stops" => Err(refusal("STOPPING", None)),
            other => panic!("{other}"),
        };
        broker.script.get.lock().unwrap().push_back(answer);
    }
    (brokers, addresses)
}

#[tokio::test]
async fn ways() {
    for case in cases("way") {
        let name = case["name"].as_str().unwrap();
        let (_brokers, addresses) = servers(case["servers"].as_array().unwrap()).await;
        let listed = case["listed"].as_array().unwrap().iter().map(|at| at.as_u64().unwrap() as usize);
        let list: Vec<String> = listed.map(|at| addresses[at].to_string()).collect();
        let follow = match case["follow"].as_str().unwrap() {
            "listed" => Follow::Listed,
            "same-hosts" => Follow::SameHosts,
            "anywhere" => Follow::Anywhere,
            other => panic!("{other}"),
        };
        let options = ClientOptions { retry_for: Duration::ZERO, follow, ..ClientOptions::default() };
        let client = Client::connect_lazy(&list.join(","), options).unwrap();
        for call in case["calls"].as_array().unwrap() {
            let found = match client.get("l").await {
                Ok(lease) => Value::from(lease.slot),
                Err(error) if error.is_unavailable() => error.reason().unwrap_or_else(|| "UNREACHED".into()).into(),
                Err(error) => panic!("{name}: {error:?}"),
            };
            assert_eq!(&found, call, "{name}");
        }
    }
}
