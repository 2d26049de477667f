//! A resource follows its configuration.

use crate::lifecycle::Consequence;
use crate::{Core, Reason, ResourceId, ResourceState, Source, Stage, Subject};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

impl Core {
    /// Drains what the configuration no longer has: a pool or machine that was removed or disabled; and takes over new
    /// labels and slots.
    pub(crate) fn follow_configuration(&mut self, id: ResourceId) {
        let Some(row) = self.resource(id).cloned() else { return };
        match row.state.stage() {
            // A resource that an operator keeps for triage stays.
            Stage::Apart | Stage::Leaving | Stage::Gone => return,
            Stage::Coming | Stage::Ready | Stage::Doubted | Stage::Repairing | Stage::Draining => {}
        }
        let host = row.parent.and_then(|parent| parent.host).and_then(|host| self.resource(host)).cloned();
        if let (Some(host), ResourceState::Ready) = (host, &row.state)
            && let ResourceState::Draining { cause, deadline } = &host.state
        {
            // It came back while its host drains: it could not be leased, and would keep the host.
            let why = format!("its host {} is drained", host.id);
            let mut chain = alloc::vec![self.link(id, Reason::ParentLost, &why, Source::Broker)];
            chain.extend(cause.iter().cloned());
            self.then(Consequence::Drain { resource: id, cause: chain, deadline: *deadline });
            return;
        }
        let Some(pool) = self.pool_entry(&row.pool) else { return };
        let config = pool.config.clone();
        let item = row.item.as_ref().and_then(|name| {
            config.inventory.as_ref().and_then(|items| items.iter().find(|item| item.name == *name)).cloned()
        });
        let why: Option<String> = if !pool.configured {
            Some(String::from("its pool was removed from the configuration"))
        } else if !config.enabled {
            Some(format!("its pool is disabled in the configuration{}", because(config.disabled_reason.as_ref())))
        } else {
            match (&row.item, &item) {
                (Some(name), None) => Some(format!("{name} was removed from the inventory")),
                (Some(name), Some(item)) if !item.enabled => {
                    Some(format!("{name} is disabled in the inventory{}", because(item.disabled_reason.as_ref())))
                }
                (Some(_) | None, _) => None,
            }
        };
        if let Some(why) = why {
            let known = matches!(&row.state, ResourceState::Draining { cause, .. }
                if cause.iter().any(|l| l.reason == Reason::Disabled && l.subject == Subject::Resource(id)));
            if !known {
                let link = self.link(id, Reason::Disabled, &why, Source::Broker);
                let deadline = config.drain.map(|span| self.now().after(span));
                self.then(Consequence::Drain { resource: id, cause: alloc::vec![link], deadline });
            }
            return;
        }
        // A resource that is in the configuration again serves again.
        let back = self.link(id, Reason::Disabled, "it is in the configuration again", Source::Broker);
        self.then(Consequence::Undrain { resource: id, root: id, reasons: &[Reason::Disabled], link: back });
        let slots = item.as_ref().and_then(|item| item.slots).unwrap_or(config.slots).max(1);
        // The labels of the entry, and for the rest those that were found: a label that left the entry is gone.
        let labels = item.map(|item| {
            let mut labels = item.labels;
            for (key, value) in &row.found {
                labels.entry(key.clone()).or_insert_with(|| value.clone());
            }
            labels
        });
        let labels = labels.filter(|labels| *labels != row.labels);
        if slots != row.slots || labels.is_some() {
            self.edit_resource(id, |row| {
                row.slots = slots;
                if let Some(labels) = labels {
                    row.labels = labels;
                }
            });
        }
    }
}

/// A reason as the end of a sentence.
pub(crate) fn because(reason: Option<&Arc<str>>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}
