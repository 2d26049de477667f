//! The texts that are stored and that clients compare. A text that is in a release stays as it is; new ones may be added.

use wharfinger_core::{BlockerCode, EventKind};

const EVENTS: &[&str] = &[
    "lease.queued",
    "lease.preparing",
    "lease.active",
    "lease.requeued",
    "lease.delayed",
    "lease.reported",
    "lease.unreached",
    "lease.released",
    "lease.expired",
    "lease.broken",
    "lease.cancelled",
    "lease.failed",
    "lease.finding",
    "lease.work-blamed",
    "resource.provisioning",
    "resource.provision-failed",
    "resource.ready",
    "resource.suspect",
    "resource.no-verdict",
    "resource.held-back",
    "resource.would-end",
    "resource.cleared",
    "resource.repairing",
    "resource.repaired",
    "resource.repair-failed",
    "resource.check-blind",
    "resource.kept",
    "resource.unfit",
    "resource.on-trial",
    "resource.trusted",
    "resource.hold-over",
    "resource.quarantined",
    "resource.at-risk",
    "resource.at-risk-no-more",
    "resource.ends",
    "resource.called-off",
    "resource.draining",
    "resource.gave-way",
    "resource.destroying",
    "resource.destroy-failed",
    "resource.orphaned",
    "resource.gone",
    "resource.clean-failed",
    "resource.cordoned",
    "resource.uncordoned",
    "resource.drain-asked",
    "resource.undrain-asked",
    "resource.check-asked",
    "resource.tainted",
    "resource.recover-asked",
    "resource.recycle-asked",
    "resource.force-destroy-asked",
    "resource.noted",
    "resource.note-removed",
    "machine.cordoned",
    "machine.uncordoned",
    "machine.drained",
    "machine.undrained",
    "machine.held",
    "machine.hold-over",
    "machine.noted",
    "machine.note-removed",
    "session.opened",
    "session.doubt",
    "session.resumed",
    "session.lost",
    "session.closed",
    "pool.configured",
    "pool.removed",
    "pool.cordoned",
    "pool.uncordoned",
    "pool.brake-on",
    "pool.brake-off",
    "pool.unsettled",
];

const BLOCKERS: &[&str] = &[
    "DELAYED",
    "INCOMPLETE",
    "REMOVED",
    "DISABLED",
    "CORDONED",
    "AVOIDED",
    "AT_RISK",
    "ENDS_TOO_SOON",
    "NO_HOST",
    "PROVISIONING",
    "BRAKED",
    "IN_DOUBT",
    "HELD",
    "BACKING_OFF",
    "BUSY",
    "AT_MAX",
    "TENANT_QUOTA",
    "NEVER_WITHIN_QUOTA",
    "ISOLATED",
];

#[test]
fn no_event_kind_is_renamed() {
    assert_eq!(EventKind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(), EVENTS);
    for kind in EventKind::ALL {
        assert_eq!(EventKind::parse(kind.as_str()), Some(*kind));
        assert_eq!(kind.to_string(), kind.as_str());
    }
    assert_eq!(EventKind::parse("lease.unheard-of"), None);
}

#[test]
fn no_blocker_code_is_renamed() {
    assert_eq!(BlockerCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>(), BLOCKERS);
    for code in BlockerCode::ALL {
        assert_eq!(BlockerCode::parse(code.as_str()), Some(*code));
    }
}
