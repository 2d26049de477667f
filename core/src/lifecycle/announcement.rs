//! The end of a resource is announced, moved or called off.

use crate::lifecycle::Consequence;
use crate::{AtRisk, Core, EventKind, Link, Notice, Reason, ResourceId, ResourceState, Subject, Timestamp};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Core {
    /// It may be taken away: nothing is broken, and others are preferred.
    pub(crate) fn at_risk(&mut self, id: ResourceId, notice: &Notice) {
        let known = self.resource(id).is_none_or(|row| row.at_risk.is_some()) || self.is_leaving(id);
        if known {
            return;
        }
        let (source, detail) = (notice.source.clone(), notice.detail.clone());
        self.edit_resource(id, |row| row.at_risk = Some(AtRisk { source, detail }));
        self.risk_changed(id);
        let text = format!("{} ({})", notice.detail, notice.source);
        self.own_event(EventKind::ResourceAtRisk, Subject::Resource(id), text);
    }

    /// Requests in the queue shun what is at risk where another resource can come, and take it again afterwards: those for the
    /// resource, and for the copies on it.
    fn risk_changed(&mut self, id: ResourceId) {
        let below = self.children(id);
        let pools = [id].into_iter().chain(below).filter_map(|id| self.resource(id).map(|row| row.pool.clone()));
        let pools: Vec<Arc<str>> = pools.collect();
        self.mark_all_dirty(pools);
    }

    /// A source announced the end of a resource: holders are notified at once, there are no new leases, and it ends
    /// then.
    pub(crate) fn announce_end(&mut self, id: ResourceId, source: &Arc<str>, at: Timestamp, link: Link) {
        let Some(row) = self.resource(id).cloned() else { return };
        // An interruption is not put off: a later time is an older word that comes late. Planned work may be.
        let known = row.announced.get(source).copied();
        let stale = known.is_some_and(|known| known == at || (known < at && link.reason == Reason::Interrupted));
        if self.is_leaving(id) || stale {
            return;
        }
        let mut announced = row.announced.clone();
        announced.insert(source.clone(), at);
        let text = format!("in {}: {}", at.since(self.now()), link.detail);
        let ends_at = self.end_moves(id, announced);
        self.own_event(EventKind::ResourceEnds, Subject::Resource(id), text);
        self.then(Consequence::Drain { resource: id, cause: alloc::vec![link], deadline: ends_at });
    }

    /// A source withdrew its announcement: the resource serves again once a check has passed.
    pub(crate) fn call_off(&mut self, id: ResourceId, source: &Arc<str>, link: Link) {
        let Some(row) = self.resource(id).cloned() else { return };
        if row.at_risk.as_ref().is_some_and(|risk| risk.source == *source) {
            self.edit_resource(id, |row| row.at_risk = None);
            self.risk_changed(id);
            self.own_event(EventKind::ResourceAtRiskNoMore, Subject::Resource(id), &*link.detail);
        }
        let mut announced = row.announced.clone();
        if announced.remove(source).is_none() || self.is_leaving(id) {
            return;
        }
        self.end_moves(id, announced);
        self.own_event(EventKind::ResourceCalledOff, Subject::Resource(id), format!("{} ({source})", link.detail));
        let reasons = &[Reason::Interrupted, Reason::Notice];
        self.then(Consequence::Undrain { resource: id, root: id, reasons, link });
    }

    /// The announcements changed: the soonest end counts, for those who drain until then too.
    fn end_moves(&mut self, id: ResourceId, announced: BTreeMap<Arc<str>, Timestamp>) -> Option<Timestamp> {
        let before = self.resource(id).and_then(|row| row.ends_at);
        let ends_at = announced.values().min().copied();
        self.edit_resource(id, |row| {
            row.announced = announced;
            row.ends_at = ends_at;
        });
        if ends_at != before {
            for lease in self.live_below(id) {
                self.edit_lease(lease, |lease| lease.ends_at = ends_at);
            }
            if before.is_some() {
                self.deadline_moves(id, before, ends_at);
            }
        }
        ends_at
    }

    /// A drain that ended with the announced end ends with the new one.
    fn deadline_moves(&mut self, id: ResourceId, before: Option<Timestamp>, after: Option<Timestamp>) {
        let Some(row) = self.resource(id).cloned() else { return };
        if matches!(row.state, ResourceState::Draining { deadline, .. } if deadline == before) {
            self.edit_resource(id, |row| {
                if let ResourceState::Draining { deadline, .. } = &mut row.state {
                    *deadline = after;
                }
            });
        }
        for child in self.children(id) {
            self.deadline_moves(child, before, after);
        }
    }
}
