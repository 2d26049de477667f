//! The world said something unasked. Notices come late, twice, out of order and for strangers: each is harmless.

use crate::machine::Core;
use crate::pending::SELF;
use crate::{
    CauseChain, Link, Notice, NoticeKind, NoticeTarget, Reason, Rejection, Reply, ResourceId, ResourceState, Source,
    Subject, Timestamp,
};
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
        let now = self.now;
        match notice.kind {
            NoticeKind::ConnectionLost => self.suspect(id, alloc::vec![link(Reason::ConnectionLost, now)]),
            NoticeKind::Gone => {
                self.lose(id, alloc::vec![link(Reason::ResourceGone, now)], &Arc::from(SELF));
            }
            NoticeKind::AtRisk => {
                self.at_risk(id, &notice);
            }
            NoticeKind::Interruption(at) => self.announce_end(id, at, link(Reason::Interrupted, now)),
            NoticeKind::Maintenance(at) => self.announce_end(id, at, link(Reason::Notice, now)),
            NoticeKind::Cancelled => self.call_off(id, link(Reason::Notice, now)),
        }
        Ok(Reply::Done)
    }

    /// It may be taken away: nothing is broken, and others are preferred.
    fn at_risk(&mut self, id: ResourceId, notice: &Notice) {
        let known = self.resource(id).is_none_or(|row| row.at_risk.is_some()) || self.is_leaving(id);
        if known {
            return;
        }
        let detail = format!("{} ({})", notice.detail, notice.source);
        self.edit_resource(id, |row| row.at_risk = Some(Arc::from(detail.as_str())));
        self.own_event("resource.at-risk", Subject::Resource(id), detail);
    }

    fn target_of(&self, notice: &Notice) -> Option<ResourceId> {
        let pool = self.pools.get(&notice.pool)?;
        match &notice.target {
            NoticeTarget::Resource(id) => pool.members.contains(id).then_some(*id),
            NoticeTarget::Item(item) => pool.members.iter().copied().find(|id| {
                self.resource(*id).is_some_and(|row| {
                    row.item.as_ref() == Some(item)
                        && !matches!(row.state, ResourceState::Destroying { .. } | ResourceState::Orphaned { .. })
                })
            }),
        }
    }

    /// Its end is known: holders are told at once, no new leases, and at that time it is over.
    fn announce_end(&mut self, id: ResourceId, at: Timestamp, link: Link) {
        let Some(row) = self.resource(id) else { return };
        if row.ends_at.is_some_and(|known| known <= at) {
            // Nothing new but who says so: what one source calls off, another may still announce.
            if matches!(row.state, ResourceState::Draining { .. }) {
                self.drain(id, alloc::vec![link], None);
            }
            return;
        }
        self.edit_resource(id, |row| row.ends_at = Some(at));
        self.own_event("resource.ends", Subject::Resource(id), format!("in {}: {}", at.since(self.now), link.detail));
        for lease in self.live_below(id) {
            self.edit_lease(lease, |lease| lease.ends_at = Some(at));
        }
        self.drain(id, alloc::vec![link], Some(at));
    }

    /// What was announced will not happen: it serves again once a check has passed.
    fn call_off(&mut self, id: ResourceId, link: Link) {
        let Some(row) = self.resource(id).cloned() else { return };
        if row.at_risk.is_some() {
            self.edit_resource(id, |row| row.at_risk = None);
            self.own_event("resource.at-risk-no-more", Subject::Resource(id), &*link.detail);
        }
        let announced = |of: &Link| matches!(of.reason, Reason::Interrupted | Reason::Notice);
        let (own, others) = match &row.state {
            ResourceState::Draining { cause, .. } => {
                let said = |by_it: bool| cause.iter().any(|l| announced(l) && (l.source == link.source) == by_it);
                (said(true), said(false))
            }
            _ => (false, false),
        };
        // Each source takes back its own word only.
        if row.ends_at.is_none() || !own {
            return;
        }
        if !others {
            self.edit_resource(id, |row| row.ends_at = None);
            for lease in self.live_below(id) {
                self.edit_lease(lease, |lease| lease.ends_at = None);
            }
        }
        self.undrain(id, id, &[Reason::Interrupted, Reason::Notice], &link, row.ends_at.filter(|_| !others));
    }

    /// Takes back what was said of `root` for these reasons. A drain for which no other reason is left ends, and that of
    /// its children with it, by way of a check. `announced` is the end that was called off.
    pub(crate) fn undrain(
        &mut self,
        id: ResourceId,
        root: ResourceId,
        reasons: &[Reason],
        link: &Link,
        announced: Option<Timestamp>,
    ) {
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
        let deadline = deadline.filter(|at| Some(*at) != announced);
        if !rest.is_empty() {
            self.edit_resource(id, |row| row.state = ResourceState::Draining { cause: rest, deadline });
            return;
        }
        self.edit_resource(id, |row| row.state = ResourceState::Ready);
        self.suspect(id, alloc::vec![Link { subject: Subject::Resource(id), ..link.clone() }]);
        let children: alloc::vec::Vec<ResourceId> =
            self.resources.get(&id).map(|entry| entry.children.iter().copied().collect()).unwrap_or_default();
        for child in children {
            self.undrain(child, root, reasons, link, announced);
        }
    }
}
