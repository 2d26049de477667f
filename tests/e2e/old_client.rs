//! A client of commit f00d6b4, from before the API was frozen, against this server: what works, and what breaks. CHANGELOG.md
//! lists the latter as the last break before v1.

use crate::support::{Server, local};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

/// The messages of that commit.
struct OldClient {
    descriptors: DescriptorPool,
    channel: Channel,
    runtime: Runtime,
}

/// Dynamic messages on the wire.
#[derive(Clone)]
struct Dynamic {
    answer: MessageDescriptor,
}

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        self.clone()
    }

    fn decoder(&mut self) -> Self {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.answer.clone(), buffer);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// As JSON with the names of the proto file and all fields that are set.
fn shown(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

impl OldClient {
    fn of(server: &Server) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/api-f00d6b4");
        let files = ["types", "lease", "admin"].map(|name| format!("wharfinger/v1/{name}.proto"));
        let files = protox::compile(files, [folder]).unwrap();
        let descriptors = DescriptorPool::from_file_descriptor_set(files).unwrap();
        let runtime = Runtime::new().unwrap();
        let endpoint = Endpoint::from_shared(server.address.clone()).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self { descriptors, channel, runtime }
    }

    fn prepared(&self, method: &str, request: &Value) -> (DynamicMessage, PathAndQuery, Dynamic) {
        let (service, name) = method.split_once('/').unwrap();
        let service = self.descriptors.get_service_by_name(&format!("wharfinger.v1.{service}")).unwrap();
        let method = service.methods().find(|method| method.name() == name).unwrap();
        let path = format!("/{}/{name}", service.full_name()).parse().unwrap();
        let request = DynamicMessage::deserialize(method.input(), request).unwrap();
        (request, path, Dynamic { answer: method.output() })
    }

    fn call(&self, method: &str, request: &Value) -> Result<Value, Status> {
        let (request, path, codec) = self.prepared(method, request);
        self.runtime.block_on(async {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone());
            grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
            Ok(shown(grpc.unary(Request::new(request), path, codec).await?.get_ref()))
        })
    }

    fn watch(&self, request: &Value) -> Streaming<DynamicMessage> {
        let (request, path, codec) = self.prepared("LeaseService/Watch", request);
        self.runtime.block_on(async {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone());
            grpc.ready().await.unwrap();
            grpc.server_streaming(Request::new(request), path, codec).await.unwrap().into_inner()
        })
    }

    /// The next event of a watch that shows a lease.
    fn next_lease(&self, watch: &mut Streaming<DynamicMessage>) -> Value {
        loop {
            let event = self.runtime.block_on(watch.message()).unwrap().expect("the watch continues");
            if let Some(lease) = shown(&event).get("lease") {
                return lease.clone();
            }
        }
    }

    fn lease(&self, id: &str) -> Value {
        let request = json!({ "request_id": id, "holder": "old", "selector": { "pool": "copies" }, "wait": "60s" });
        self.call("LeaseService/Lease", &request).unwrap()["lease"].clone()
    }
}

#[test]
fn an_old_client_leases_renews_watches_and_releases() {
    let server = local();
    let old = OldClient::of(&server);

    let lease = old.lease("old-1");
    assert_eq!((&lease["state"], &lease["holder"]), (&json!("LEASE_STATE_ACTIVE"), &json!("old")), "{lease}");
    assert!(lease["active_at"].is_string() && lease["expires_at"].is_string() && lease["fencing_token"].is_string());
    let id = lease["id"].as_str().unwrap();
    assert_eq!(old.lease("old-1")["id"], lease["id"], "the same request is the same lease");

    let mut watch = old.watch(&json!({ "lease_ids": [id] }));
    assert_eq!(old.next_lease(&mut watch)["state"], "LEASE_STATE_ACTIVE");

    let renewed = old.call("LeaseService/Renew", &json!({ "lease_id": id, "ttl": "300s" })).unwrap();
    let until = &renewed["lease"]["expires_at"];
    assert!(until.is_string() && *until != lease["expires_at"], "{renewed}");
    assert_eq!(old.next_lease(&mut watch)["expires_at"], *until);

    let released = json!({ "lease_id": id, "outcome": "OUTCOME_OK", "note": "by an old client" });
    let released = old.call("LeaseService/Release", &released).unwrap();
    assert_eq!(released["lease"]["outcome"], "OUTCOME_OK", "{released}");
    let ended = old.next_lease(&mut watch);
    assert_eq!((&ended["state"], &ended["outcome"]), (&json!("LEASE_STATE_RELEASED"), &json!("OUTCOME_OK")));
    assert!(ended["ended_at"].is_string(), "{ended}");

    for (method, request) in [
        ("LeaseService/Get", json!({ "lease_id": id })),
        ("LeaseService/List", json!({ "pools": ["copies"], "states": ["LEASE_STATE_RELEASED"], "page_size": 10 })),
        ("LeaseService/Explain", json!({ "lease_id": id })),
        ("LeaseService/Timeline", json!({ "lease_id": id, "limit": 50 })),
    ] {
        let answer = old.call(method, &request).unwrap();
        assert!(answer.to_string().contains(id), "{method}: {answer}");
    }
}

#[test]
fn an_old_operator_is_obeyed() {
    let server = local();
    let old = OldClient::of(&server);
    let lease = old.lease("old-2");
    let (id, resource) = (lease["id"].as_str().unwrap(), lease["resource_id"].as_str().unwrap());

    let pool = json!({ "pool": "copies", "reason": "an old client" });
    let cordoned = old.call("AdminService/Cordon", &pool).unwrap();
    assert_eq!(cordoned["pool"]["cordoned"], true, "{cordoned}");
    old.call("AdminService/Uncordon", &pool).unwrap();
    let checked =
        old.call("AdminService/Check", &json!({ "resource_id": resource, "reason": "an old client" })).unwrap();
    assert_eq!(checked["resource"]["id"], resource, "{checked}");
    let history = old.call("AdminService/Events", &json!({ "lease_id": id, "limit": 1 })).unwrap();
    assert_eq!(history["events"].as_array().map(Vec::len), Some(1), "`limit` is the size of a page now: {history}");
    let broken = old.call("AdminService/Break", &json!({ "lease_id": id, "reason": "an old client" })).unwrap();
    assert_eq!(broken["lease"]["state"], "LEASE_STATE_BROKEN", "{broken}");
}

/// Each item is in CHANGELOG.md.
#[test]
fn the_changelog_lists_each_break_for_an_old_client() {
    let server = local();
    let old = OldClient::of(&server);

    // It finds no access and no doubt: both are messages with new numbers.
    let lease = old.lease("old-3");
    let id = lease["id"].as_str().unwrap();
    assert!(lease.get("access").is_none() && lease.get("doubt").is_none(), "{lease}");
    let resource = json!({ "resource_id": lease["resource_id"] });
    let resource = old.call("AdminService/GetResource", &resource).unwrap();
    assert!(resource["resource"].get("access").is_none(), "{resource}");
    // It finds no counts of states.
    let pools = old.call("AdminService/ListPools", &json!({})).unwrap();
    assert!(pools["pools"].as_array().is_some_and(|pools| !pools.is_empty()), "{pools}");
    assert!(pools["pools"].as_array().unwrap().iter().all(|pool| pool.get("resources").is_none()), "{pools}");
    // A release without an outcome is ABANDONED, a number that it does not know.
    let released = old.call("LeaseService/Release", &json!({ "lease_id": id })).unwrap();
    assert_eq!(released["lease"]["outcome"], 4, "{released}");
    // A count above 2147483647 is a negative number here, and refused.
    let request =
        json!({ "request_id": "old-4", "holder": "old", "selector": { "pool": "copies" }, "count": u32::MAX });
    let refused = old.call("LeaseService/Lease", &request).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");

    let changelog = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/CHANGELOG.md")).unwrap();
    for item in [
        "last break before v1",
        "An older client finds no access",
        "`Lease.doubt` is a message",
        "`Pool.resources` a list",
        "A `Release` without an outcome is ABANDONED",
        "A negative one is refused",
        "`EventsRequest.limit` is `page_size`",
    ] {
        assert!(changelog.contains(item), "CHANGELOG.md does not say: {item}");
    }
}
