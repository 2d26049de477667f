//! Notices of the outside world. They come late, twice, out of order and for unknown resources; each of these is
//! harmless.

use crate::Core;
use crate::lifecycle::Consequence;
use crate::{Link, Notice, NoticeKind, NoticeTarget, Reason, Rejection, Reply, ResourceId, Source, Stage, Subject};

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
            NoticeKind::Silent => {
                let cause = alloc::vec![link(Reason::ProbeMissed, now)];
                self.then(Consequence::Doubt { resource: id, cause, missed: true });
            }
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
}
