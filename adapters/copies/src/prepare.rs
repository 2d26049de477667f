//! Brings the copies of a resource from the leftovers of a former lease to the commits that the next one wants.

use crate::checkout::TrustedIndexes;
use crate::error::StepError;
use crate::git::WorkingCopy;
use crate::lease_file::LeaseFile;
use crate::params::Requested;
use crate::parts::{Parts, all};
use crate::sparse;
use crate::update::{ForLease, Updated, update};
use std::collections::BTreeMap;
use wharfinger_adapter::{Access, Blame, Failure, HolderWork, Prepared, access};

/// The key of the pool's `ca_file` in the access of a lease. A landing needs the file, too.
pub const CA_FILE: &str = "ca_file";

/// Prepares the copies for a lease. A part that the lease can do without is moved out of the tree if its remote fails.
///
/// # Errors
/// `MERGE_NEEDS_HISTORY` (request), and the errors of [`Requested::parse`] and [`update`].
pub(crate) async fn prepare(parts: &Parts, work: &HolderWork, trusted: &TrustedIndexes) -> Result<Prepared, StepError> {
    let asked = Requested::parse(&work.params, &parts.names(), parts.default)?;
    if let (Some(depth), true) = (parts.whole.config.depth, asked.merges.iter().any(|merges| !merges.is_empty())) {
        let text = format!(
            "a merge needs the whole history, and the copies of this pool have {depth} commits of it (depth); lease from another pool, or merge before"
        );
        return Err(Failure::request("MERGE_NEEDS_HISTORY", text).into());
    }
    let wants: Vec<bool> = asked.needed.iter().map(|needed| *needed || !asked.strict).collect();
    let mut inside = wants.clone();
    if parts.several() {
        parts.whole.take_for(work.token).await?;
        parts.arrange(|at| wants[at]).await?;
    }
    let (wanted, merges, wants) = (&asked.wanted, &asked.merges, &wants);
    let for_whom = ForLease { work, first: !parts.several(), trusted };
    let mut results = parts
        .each(|at, copy| async move {
            match wants[at] {
                true => update(copy, &wanted[at], &merges[at], Some(for_whom), work.token, 0).await.map(Some),
                false => Ok(None),
            }
        })
        .await;
    for (at, result) in results.iter_mut().enumerate() {
        // The lease can do without the part.
        if let Err(StepError::Failure(failure)) = result
            && failure.blame == Blame::Provider
            && !asked.needed[at]
        {
            tracing::warn!(resource = %parts.whole.resource, reason = failure.reason, why = %failure.message, "the part is moved out of the tree");
            inside[at] = false;
            *result = Ok(None);
        }
    }
    let done: Vec<Option<Updated>> = all(results)?;
    if inside != *wants {
        parts.arrange(|at| inside[at]).await?;
    }
    let main = done[parts.default].clone().unwrap_or_default();
    if parts.several() || parts.whole.config.submodules {
        LeaseFile::write(&parts.whole, work, &main.commit).await?;
    }
    let mut access = Access::from([
        (access::PATH.to_string(), parts.list[parts.default].tree.clone()),
        (access::COMMIT.to_string(), main.commit),
        (access::FENCE.to_string(), parts.whole.fence()),
        (access::REPOSITORY.to_string(), parts.list[parts.default].config.repository.clone()),
        (access::WARMTH.to_string(), main.warmth.word().to_string()),
        (access::CHANGED.to_string(), main.written.to_string()),
    ]);
    access.extend(parts.whole.config.ca_file.clone().map(|file| (CA_FILE.to_string(), file)));
    access.extend(main.base.map(|base| (access::BASE.to_string(), base)));
    access.extend(parts.whole.config.depth.map(|depth| (access::DEPTH.to_string(), depth.to_string())));
    access.extend(sparse_of(&parts.list[parts.default]).map(|dirs| (access::SPARSE.to_string(), dirs)));
    if parts.several() {
        access.insert(access::ROOT.to_string(), parts.whole.tree.clone());
        for (copy, checked) in parts.list.iter().zip(done) {
            let Some(checked) = checked else { continue };
            access.insert(format!("{}.{}", access::COMMIT, copy.part), checked.commit);
            access.insert(format!("{}.{}", access::REPOSITORY, copy.part), copy.config.repository.clone());
            access.extend(checked.base.map(|base| (format!("{}.{}", access::BASE, copy.part), base)));
            access.extend(sparse_of(copy).map(|dirs| (format!("{}.{}", access::SPARSE, copy.part), dirs)));
        }
    }
    Ok(Prepared { near: near(work, &access), access })
}

/// The directories of a partial tree, separated by commas. `None` for the whole tree.
fn sparse_of(copy: &WorkingCopy) -> Option<String> {
    Some(sparse::lines(&copy.config.sparse).replace('\n', ",")).filter(|dirs| !dirs.is_empty())
}

/// The parameters of later leases for which the copy is warm: those of this lease, and the commits that it has now.
fn near(work: &HolderWork, access: &Access) -> BTreeMap<String, String> {
    let mut near = work.params.clone();
    let commits = access.iter().filter(|(key, _)| key.split('.').next() == Some(access::COMMIT));
    near.extend(commits.map(|(key, commit)| match key.split_once('.') {
        Some((_, part)) => (format!("{part}.commit"), commit.clone()),
        None => (key.clone(), commit.clone()),
    }));
    near
}
