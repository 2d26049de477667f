//! Faults between the servers of a cluster, as their reports show them.

use super::clipped;
use crate::pb;
use std::collections::BTreeSet;
use std::time::Duration;

/// The silence after which a server is taken for down: it reports every five seconds.
const SILENT: Duration = Duration::from_secs(15);

/// Whether a server has not reported for too long.
pub(crate) fn is_silent(server: &pb::Server) -> bool {
    server.silent.and_then(|silent| Duration::try_from(silent).ok()).is_some_and(|silent| silent > SILENT)
}

/// The server that leads: of those that say so the one with the greatest epoch, unless it is silent.
pub(crate) fn leader(all: &[pb::Server]) -> Option<&pb::Server> {
    all.iter().filter(|server| server.leads).max_by_key(|server| server.epoch).filter(|server| !is_silent(server))
}

/// The faults, as sentences.
pub(crate) fn faults(all: &[pb::Server]) -> Vec<String> {
    let mut faults = Vec::new();
    if leader(all).is_none() {
        faults.push("No server leads: nothing is granted, renewed or broken.".to_owned());
    }
    for server in all {
        let name = if server.address.is_empty() { "This server".to_owned() } else { clipped(&server.address) };
        if is_silent(server) {
            faults.push(format!("{name} is silent: it is down, or does not reach the database."));
        } else if server.configuration_refused_since.is_some() {
            faults.push(format!("{name} uses an earlier text of its configuration file: a later one was refused."));
        }
    }
    let up = || all.iter().filter(|server| !is_silent(server));
    let differ = |values: BTreeSet<&str>| values.len() > 1;
    if differ(up().map(|server| &*server.configuration).filter(|text| !text.is_empty()).collect()) {
        faults.push("The servers have different configuration files: compare them, and reload.".to_owned());
    }
    if differ(up().map(|server| &*server.version).collect()) {
        faults.push("The servers have different versions: end the upgrade.".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, epoch: u64, silent: i64) -> pb::Server {
        pb::Server {
            address: address.into(),
            leads: epoch > 0,
            epoch,
            version: "1".into(),
            configuration: "aa".into(),
            silent: Some(prost_types::Duration { seconds: silent, nanos: 0 }),
            ..pb::Server::default()
        }
    }

    #[test]
    fn the_greatest_epoch_leads_unless_it_is_silent() {
        let well = [server("a", 7, 2), server("b", 0, 3)];
        assert_eq!((leader(&well).map(|one| &*one.address), faults(&well)), (Some("a"), Vec::new()));
        // The former leader was killed, and its last report says that it leads.
        let after = [server("a", 7, 60), server("b", 8, 1)];
        assert_eq!(leader(&after).map(|one| &*one.address), Some("b"));
        assert_eq!(faults(&after), ["a is silent: it is down, or does not reach the database."]);
        let none = [server("a", 7, 60), server("b", 0, 1)];
        assert_eq!(leader(&none), None);
        assert!(faults(&none)[0].starts_with("No server leads"));
    }

    #[test]
    fn differences_between_servers_are_faults() {
        let mut all = [server("a", 7, 1), server("b", 0, 1), server("c", 0, 1)];
        all[1].configuration = "bb".into();
        all[2].version = "2".into();
        all[2].configuration_refused_since = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        let found = faults(&all);
        for part in ["c uses an earlier text", "different configuration files", "different versions"] {
            assert!(found.iter().any(|fault| fault.contains(part)), "{part}: {found:?}");
        }
    }
}
