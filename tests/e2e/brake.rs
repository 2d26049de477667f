//! The brake: six hosts fall silent at once, and nothing is ended for it; one of six does, and is given up in time.

use crate::farm::{Farm, Settings};
use crate::faults::{Loss, skip};
use crate::sshd::Sshd;
use crate::support::{Server, free_port, text};
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};
use wharfinger::pb;
use wharfinger::pb::{LeaseState, ResourceState};

const HOSTS: u8 = 6;

/// DESIGN section 7: by default, a host that is silent is given up in less than this.
const SILENT: Duration = Duration::from_secs(15);

/// Six hosts with one slot each and default settings, a lease on each of them, and one that waits.
struct Six {
    farm: Farm,
    /// In the order of the leases.
    addresses: Vec<Ipv4Addr>,
    leases: Vec<pb::Lease>,
    waiter: pb::Lease,
}

impl Six {
    /// At six addresses from this one on, which no other test uses.
    fn start(first: u8) -> Self {
        let port = free_port();
        let [.., third, _] = Sshd::start().address.octets();
        let addresses: Vec<Ipv4Addr> = (0..HOSTS).map(|n| Ipv4Addr::new(127, 77, third, first + n)).collect();
        let listen: String = addresses.iter().map(|address| format!("ListenAddress {address}:{port}\n")).collect();
        let sshd = Sshd::start_with(&listen);
        let inventory: String = addresses
            .iter()
            .enumerate()
            .map(|(n, address)| {
                format!(
                    "[[pool.ssh.host]]\nname = \"h{n}\"\naddress = \"{address}\"\nkey = \"{}\"\nhost_key = \"{}\"\n",
                    sshd.key().display(),
                    sshd.host_key()
                )
            })
            .collect();
        let work = tempfile::tempdir().unwrap();
        let server = Server::prepared("w.db");
        server.configure(
            "",
            &format!(
                "[[pool]]\nname = \"hosts\"\nadapter = \"ssh\"\n[pool.ssh]\nuser = \"root\"\nport = {port}\nwork_dir = \"{}\"\n{inventory}",
                work.path().display()
            ),
        );
        let farm = Farm::over(server, vec![sshd], Settings::default(), work);
        farm.server.wait_for_state("hosts", "READY", usize::from(HOSTS));
        let ask = |n| farm.active(&farm.ask("hosts", &format!("holder {n}"), false).id).lease;
        let leases: Vec<pb::Lease> = (0..HOSTS).map(ask).collect();
        let waiter = farm.ask("hosts", "waiter", false);
        assert_eq!(waiter.state(), LeaseState::Queued);
        let address = |lease: &pb::Lease| farm.resource(&lease.resource_id).access_pairs()["address"].parse().unwrap();
        let addresses = leases.iter().map(address).collect();
        Self { farm, addresses, leases, waiter }
    }

    /// They hold what they held.
    fn all_stand(&self) {
        for lease in &self.leases {
            let now = self.farm.get(&lease.id);
            assert_eq!(now.state(), LeaseState::Active, "{now:?}");
            assert_eq!((&now.resource_id, now.fencing_token), (&lease.resource_id, lease.fencing_token));
        }
    }

    fn events(&self, kind: &str) -> Vec<pb::Event> {
        self.farm.events(0).into_iter().filter(|event| event.kind == kind).collect()
    }

    fn cli(&self, args: &[&str]) -> String {
        let output = self.farm.server.cli(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).to_string()
    }
}

#[test]
fn when_all_hosts_fall_silent_at_once_nothing_is_broken() {
    if skip("brake::when_all_hosts_fall_silent_at_once_nothing_is_broken") {
        return;
    }
    let six = Six::start(210);
    let farm = &six.farm;
    let begun = SystemTime::now();
    let loss = Loss::of_all(&six.addresses);
    // Longer than one of them alone would be given.
    farm.throughout(Duration::from_secs(20), |_| six.all_stand());
    for lease in &six.leases {
        farm.told(&lease.id, begun, "the doubt", |lease| lease.doubt.is_some());
    }
    assert!(farm.was_told(&six.waiter.id, begun, |lease| lease.ended_at.is_some()).is_none());
    assert_eq!(six.events("pool.brake-on").len(), 1, "{:#?}", six.farm.events(0));
    assert!(six.events("pool.brake-off").is_empty());
    let pools = six.cli(&["pools"]);
    assert!(pools.contains("BRAKE ON (6 of 6 in trouble)"), "{pools}");
    let explained = six.cli(&["explain", &six.waiter.id]);
    assert!(explained.contains("BRAKE ON") && explained.contains("6 of 6"), "{explained}");
    assert!(farm.blockers(&six.waiter.id).contains(&"BRAKED".to_string()));

    let mended = SystemTime::now();
    drop(loss);
    farm.server.wait_for_state("hosts", "READY", usize::from(HOSTS));
    six.all_stand();
    for lease in &six.leases {
        farm.told(&lease.id, mended, "that the doubt is over", |lease| lease.doubt.is_none());
        farm.until(&lease.resource_id, ResourceState::Ready);
    }
    assert!(!six.events("pool.brake-off").is_empty(), "{:#?}", six.farm.events(0));
    let pools = six.cli(&["pools"]);
    assert!(!pools.contains("BRAKE ON"), "{pools}");
    assert!(!farm.blockers(&six.waiter.id).contains(&"BRAKED".to_string()));
    for never in ["lease.broken", "resource.destroying"] {
        assert!(six.events(never).is_empty(), "{:#?}", six.events(never));
    }
}

#[test]
fn one_of_six_that_falls_silent_is_given_up_in_time() {
    if skip("brake::one_of_six_that_falls_silent_is_given_up_in_time") {
        return;
    }
    let six = Six::start(220);
    let farm = &six.farm;
    let begun = SystemTime::now();
    let _loss = Loss::of_all(&six.addresses[..1]);
    let end = farm.told(&six.leases[0].id, begun, "its end", |lease| lease.ended_at.is_some());
    let took = end.at.duration_since(begun).unwrap();
    println!("TABLE | one of six black-holed | BROKEN {:.1} s", took.as_secs_f64());
    assert!(took < SILENT, "{took:?}");
    assert_eq!(end.lease.state(), LeaseState::Broken, "{:?}", end.lease);
    assert_eq!(end.lease.causes[0].reason, "RESOURCE_UNREACHABLE", "{:#?}", end.lease.causes);
    for lease in &six.leases[1..] {
        assert_eq!(farm.get(&lease.id).state(), LeaseState::Active);
    }
    for never in ["pool.brake-on", "resource.held-back"] {
        assert!(six.events(never).is_empty(), "{:#?}", six.events(never));
    }
}
