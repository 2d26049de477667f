//! The world said something unasked. Notices come late, twice, out of order and for strangers: each is harmless.

use crate::Core;
use crate::lifecycle::Consequence;
use crate::{
    AtRisk, CauseChain, EventKind, Link, Notice, NoticeKind, NoticeTarget, Reason, Rejection, Reply, ResourceId,
    ResourceState, Source, Stage, Subject, Timestamp,
};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;

impl Core {
    pub(crate) fn on_notice(&mut self, notice: Notice) -> Result<Reply, Rejection> {
        let Some(id) = self.target_of(&notice) else { return Ok(Reply::Done) };
        let link = |reason, at| Link {
            subject: Subject::Resource(id),
            reason,
            detail: notice.detail.clone(),
            source: Source::Notice(notice.source.clone()),
            at,
        };
        let now = self.now();
        match notice.kind {
            NoticeKind::ConnectionLost => self.then(Consequence::doubt(id, link(Reason::ConnectionLost, now))),
            NoticeKind::Gone => {
                self.then(Consequence::lose(id, alloc::vec![link(Reason::ResourceGone, now)]));
            }
            NoticeKind::AtRisk => {
                self.at_risk(id, &notice);
            }
            NoticeKind::Interruption(at) => self.announce_end(id, &notice.source, at, link(Reason::Interrupted, now)),
            NoticeKind::Maintenance(at) => self.announce_end(id, &notice.source, at, link(Reason::Notice, now)),
            NoticeKind::Cancelled => self.call_off(id, &notice.source, link(Reason::Notice, now)),
        }
        Ok(Reply::Done)
    }

    /// It may be taken away: nothing is broken, and others are preferred.
    fn at_risk(&mut self, id: ResourceId, notice: &Notice) {
        let known = self.resource(id).is_none_or(|row| row.at_risk.is_some()) || self.is_leaving(id);
        if known {
            return;
        }
        let (source, detail) = (notice.source.clone(), notice.detail.clone());
        self.edit_resource(id, |row| row.at_risk = Some(AtRisk { source, detail }));
        let text = format!("{} ({})", notice.detail, notice.source);
        self.own_event(EventKind::ResourceAtRisk, Subject::Resource(id), text);
    }

    fn target_of(&self, notice: &Notice) -> Option<ResourceId> {
        let pool = self.pool_entry(&notice.pool)?;
        match &notice.target {
            NoticeTarget::Resource(id) => pool.members.contains(id).then_some(*id),
            NoticeTarget::Item(item) => pool.members.iter().copied().find(|id| {
                self.resource(*id)
                    .is_some_and(|row| row.item.as_ref() == Some(item) && row.state.stage() != Stage::Leaving)
            }),
        }
    }

    /// Its end is known: holders are told at once, no new leases, and at that time it is over.
    fn announce_end(&mut self, id: ResourceId, source: &Arc<str>, at: Timestamp, link: Link) {
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

    /// What was announced will not happen: it serves again once a check has passed. Each source takes back its own word.
    fn call_off(&mut self, id: ResourceId, source: &Arc<str>, link: Link) {
        let Some(row) = self.resource(id).cloned() else { return };
        if row.at_risk.as_ref().is_some_and(|risk| risk.source == *source) {
            self.edit_resource(id, |row| row.at_risk = None);
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

    /// Takes back what was said of `root` for these reasons. A drain for which no other reason is left ends, and that of
    /// its children with it, by way of a check. Of notices, those of the link's source are taken back.
    pub(crate) fn undrain(&mut self, id: ResourceId, root: ResourceId, reasons: &'static [Reason], link: &Link) {
        let Some(row) = self.resource(id).cloned() else { return };
        let ResourceState::Draining { cause, deadline } = &row.state else { return };
        let said_by = |of: &Link| !matches!(of.source, Source::Notice(_)) || of.source == link.source;
        let taken_back = |link: &Link| {
            let of_root = reasons.contains(&link.reason) && link.subject == Subject::Resource(root) && said_by(link);
            of_root || (id != root && link.reason == Reason::ParentLost)
        };
        if !cause.iter().any(taken_back) {
            return;
        }
        let rest: CauseChain = cause.iter().filter(|link| !taken_back(link)).cloned().collect();
        let deadline = *deadline;
        if !rest.is_empty() {
            self.edit_resource(id, |row| row.state = ResourceState::Draining { cause: rest, deadline });
            return;
        }
        self.edit_resource(id, |row| row.state = ResourceState::Ready);
        self.then(Consequence::doubt(id, Link { subject: Subject::Resource(id), ..link.clone() }));
        for child in self.children(id) {
            self.then(Consequence::Undrain { resource: child, root, reasons, link: link.clone() });
        }
    }
}
