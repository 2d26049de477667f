//! The roles that may call each method. A method that is not here is refused for every caller.

use super::Role;

/// The callers of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone, without an identity.
    Open,
    /// Every caller where none is configured, and else no caller.
    Undisclosed,
    /// Callers with one of these roles.
    Roles(&'static [Role]),
}

/// Callers that lease.
const HOLDERS: Access = Access::Roles(&[Role::Agent, Role::Admin]);
/// Callers that end leases.
const ENDERS: Access = Access::Roles(&[Role::Agent, Role::Lead, Role::Admin]);
/// Callers that read, each within its scope.
const READERS: Access = Access::Roles(&Role::ALL);
/// Callers that end the leases of others.
const BREAKERS: Access = Access::Roles(&[Role::Lead, Role::Admin]);
/// Operators.
const ADMINS: Access = Access::Roles(&[Role::Admin]);

/// The callers of the method with exactly this path. `None`: there is no such method.
pub(crate) fn access(path: &str) -> Option<Access> {
    Some(match path {
        "/wharfinger.v1.LeaseService/Lease"
        | "/wharfinger.v1.LeaseService/Renew"
        | "/wharfinger.v1.LeaseService/Login"
        | "/wharfinger.v1.LeaseService/Report" => HOLDERS,
        "/wharfinger.v1.LeaseService/Release" => ENDERS,
        "/wharfinger.v1.LeaseService/Get"
        | "/wharfinger.v1.LeaseService/List"
        | "/wharfinger.v1.LeaseService/Watch"
        | "/wharfinger.v1.LeaseService/Explain"
        | "/wharfinger.v1.LeaseService/Timeline"
        | "/wharfinger.v1.LeaseService/GetServer"
        | "/wharfinger.v1.AdminService/ListPools"
        | "/wharfinger.v1.AdminService/GetPool" => READERS,
        "/wharfinger.v1.AdminService/Break" => BREAKERS,
        "/wharfinger.v1.AdminService/ListResources"
        | "/wharfinger.v1.AdminService/GetResource"
        | "/wharfinger.v1.AdminService/Cordon"
        | "/wharfinger.v1.AdminService/Uncordon"
        | "/wharfinger.v1.AdminService/Drain"
        | "/wharfinger.v1.AdminService/Undrain"
        | "/wharfinger.v1.AdminService/Check"
        | "/wharfinger.v1.AdminService/Taint"
        | "/wharfinger.v1.AdminService/Quarantine"
        | "/wharfinger.v1.AdminService/Hold"
        | "/wharfinger.v1.AdminService/Recover"
        | "/wharfinger.v1.AdminService/Recycle"
        | "/wharfinger.v1.AdminService/ForceDestroy"
        | "/wharfinger.v1.AdminService/Weather"
        | "/wharfinger.v1.AdminService/Events" => ADMINS,
        "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" | "/grpc.health.v1.Health/List" => Access::Open,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Access::Undisclosed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;
    use prost::Message;
    use prost_types::FileDescriptorSet;

    #[test]
    fn each_method_has_its_callers_and_nothing_else_has() {
        let files = FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap().file;
        let ours = files.iter().filter(|file| file.package() == "wharfinger.v1").flat_map(|file| &file.service);
        let mut count = 0;
        for service in ours {
            for method in &service.method {
                let path = format!("/wharfinger.v1.{}/{}", service.name(), method.name());
                let found = access(&path).unwrap_or_else(|| panic!("{path} has no callers: add it to auth/access.rs"));
                assert!(matches!(found, Access::Roles(_)), "{path}");
                count += 1;
                for wrong in [
                    path[1..].to_owned(),
                    format!("/{path}"),
                    format!("{path}/"),
                    format!("{path}?x"),
                    path.replace("Service/", "Service//"),
                    path.replace("Service/", "Service%2f"),
                    path.to_uppercase(),
                    format!("http://host{path}"),
                ] {
                    assert_eq!(access(&wrong), None, "{wrong}");
                }
            }
        }
        assert!(count > 25, "{count} methods");
        assert_eq!((access("*"), access(""), access("/wharfinger.v1.LeaseService/")), (None, None, None));
    }
}
