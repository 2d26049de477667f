//! The verb that each method needs. A method that is not here is refused for every caller.

use super::Verb;

/// The callers of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everyone, without an identity.
    Open,
    /// Every caller where none is configured, and else no caller.
    Undisclosed,
    /// Every caller with an identity, also one without a role.
    Known,
    /// Every caller with a role.
    AnyRole,
    /// Callers with a role that has one of these verbs. The handler asks for the one that the request needs.
    Verbs(&'static [Verb]),
}

/// The callers of the method with exactly this path. `None`: there is no such method.
pub(crate) fn access(path: &str) -> Option<Access> {
    let verb: &'static [Verb] = match path {
        "/wharfinger.v1.LeaseService/Lease" => &[Verb::Lease],
        "/wharfinger.v1.LeaseService/Renew" => &[Verb::Renew],
        "/wharfinger.v1.LeaseService/Report" => &[Verb::Report],
        "/wharfinger.v1.LeaseService/Release" => &[Verb::Release],
        // A session keeps leases. Each call over it needs its own verb.
        "/wharfinger.v1.LeaseService/Session" => &[Verb::Renew],
        "/wharfinger.v1.LeaseService/Login" => &[Verb::Login],
        "/wharfinger.v1.LeaseService/Get" => &[Verb::Get],
        "/wharfinger.v1.LeaseService/List" => &[Verb::List],
        "/wharfinger.v1.LeaseService/Watch" => &[Verb::Watch],
        "/wharfinger.v1.LeaseService/Explain" | "/wharfinger.v1.LeaseService/ListQueue" => &[Verb::Explain],
        // Of a lease and of a resource.
        "/wharfinger.v1.LeaseService/Timeline" => &[Verb::Timeline, Verb::ResourceTimeline],
        "/wharfinger.v1.AdminService/ListPools"
        | "/wharfinger.v1.AdminService/GetPool"
        | "/wharfinger.v1.AdminService/ListTenants" => &[Verb::GetPool],
        "/wharfinger.v1.AdminService/Break" => &[Verb::Break],
        // A watch of pools needs their verb, too.
        "/wharfinger.v1.AdminService/ListResources"
        | "/wharfinger.v1.AdminService/GetResource"
        | "/wharfinger.v1.AdminService/WatchResources" => &[Verb::GetResource],
        "/wharfinger.v1.AdminService/Cordon" => &[Verb::Cordon],
        "/wharfinger.v1.AdminService/Uncordon" => &[Verb::Uncordon],
        "/wharfinger.v1.AdminService/Drain" => &[Verb::Drain],
        "/wharfinger.v1.AdminService/Undrain" => &[Verb::Undrain],
        "/wharfinger.v1.AdminService/Check" => &[Verb::Check],
        "/wharfinger.v1.AdminService/Taint" => &[Verb::Taint],
        "/wharfinger.v1.AdminService/Quarantine" => &[Verb::Quarantine],
        "/wharfinger.v1.AdminService/Hold" => &[Verb::Hold],
        "/wharfinger.v1.AdminService/Recover" => &[Verb::Recover],
        "/wharfinger.v1.AdminService/Recycle" => &[Verb::Recycle],
        "/wharfinger.v1.AdminService/ForceDestroy" => &[Verb::ForceDestroy],
        "/wharfinger.v1.AdminService/Note" => &[Verb::Note],
        "/wharfinger.v1.AdminService/Weather" => &[Verb::Weather],
        "/wharfinger.v1.AdminService/Events" => &[Verb::Events],
        "/wharfinger.v1.LeaseService/GetServer" | "/wharfinger.v1.LeaseService/ListServers" => {
            return Some(Access::AnyRole);
        }
        "/wharfinger.v1.TrustService/WhoAmI" | "/wharfinger.v1.TrustService/CanI" => return Some(Access::Known),
        "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" | "/grpc.health.v1.Health/List" => {
            return Some(Access::Open);
        }
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => return Some(Access::Undisclosed),
        _ => return None,
    };
    Some(Access::Verbs(verb))
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
                let named = matches!(found, Access::Verbs(_) | Access::AnyRole | Access::Known);
                assert!(named, "{path}");
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
