//! grpcurl with no proto file at hand.

use crate::support::{Server, local, text};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use wharfinger_testkit::{Need, need};

/// A program of the Python environment that test.sh makes.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let venv = std::env::var_os("WHARFINGER_VENV").map_or_else(|| PathBuf::from("target/venv"), PathBuf::from);
    let path = venv.join("bin").join(name);
    need(Need::Venv, path.exists().then_some(path))
}

fn grpcurl(server: &Server, before: &[&str], after: &[&str]) -> Option<Command> {
    let mut command = Command::new(tool("grpcurl")?);
    let address = server.address.strip_prefix("http://").unwrap();
    command.arg("-plaintext").args(before).arg(address).args(after).stdin(Stdio::null());
    Some(command)
}

fn call(server: &Server, method: &str, request: &str) -> Option<Output> {
    let method = format!("wharfinger.v1.LeaseService/{method}");
    Some(grpcurl(server, &["-d", request], &[&method])?.output().unwrap())
}

#[test]
fn list_describe_lease_watch_release() {
    let server = local();
    let Some(mut list) = grpcurl(&server, &[], &["list"]) else { return };
    let listed = String::from_utf8_lossy(&list.output().unwrap().stdout).to_string();
    for service in ["wharfinger.v1.LeaseService", "wharfinger.v1.AdminService", "grpc.health.v1.Health"] {
        assert!(listed.contains(service), "{listed}");
    }
    let described = grpcurl(&server, &[], &["describe", "wharfinger.v1.LeaseService"]).unwrap().output().unwrap();
    assert!(String::from_utf8_lossy(&described.stdout).contains("rpc Lease"), "{}", text(&described));

    let request = r#"{"requestId":"g1","holder":"grpcurl","selector":{"pool":"copies"},"wait":"60s"}"#;
    let leased = call(&server, "Lease", request).unwrap();
    let lease: serde_json::Value =
        serde_json::from_slice(&leased.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&leased)));
    assert_eq!(lease["lease"]["state"], "LEASE_STATE_ACTIVE", "{lease}");
    let id = lease["lease"]["id"].as_str().unwrap();

    let watch = grpcurl(
        &server,
        &["-max-time", "5", "-d", &format!(r#"{{"leaseIds":["{id}"]}}"#)],
        &["wharfinger.v1.LeaseService/Watch"],
    );
    let watch = watch.unwrap().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let released = call(&server, "Release", &format!(r#"{{"leaseId":"{id}"}}"#)).unwrap();
    assert!(released.status.success(), "{}", text(&released));
    let again = call(&server, "Release", &format!(r#"{{"leaseId":"{id}"}}"#)).unwrap();
    assert!(again.status.success(), "releasing twice is fine: {}", text(&again));
    let told = String::from_utf8_lossy(&watch.wait_with_output().unwrap().stdout).to_string();
    assert!(told.contains("LEASE_STATE_RELEASED"), "{told}");
}

#[test]
fn a_refusal_names_the_field_and_the_reason() {
    let server = local();
    let Some(refused) = call(&server, "Lease", r#"{"requestId":"","holder":"x"}"#) else { return };
    let told = String::from_utf8_lossy(&refused.stderr).to_string();
    assert!(told.contains("InvalidArgument") && told.contains("request_id") && told.contains("selector"), "{told}");
    // The details are known from reflection alone.
    assert!(told.contains("google.rpc.BadRequest") && told.contains("fieldViolations"), "{told}");
    assert!(told.contains("google.rpc.ErrorInfo") && told.contains("\"domain\""), "{told}");
    assert!(!told.contains("not recognized") && !told.contains("unable to resolve"), "{told}");
}
