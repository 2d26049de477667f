//! Makes a host: plans a launch request, makes it, boots the instance. The record of each step is stored first, so that a call that
//! was cut off continues from its record.

use crate::backoff::Backoff;
use crate::boot::{Boot, Ended, Proved, proved};
use crate::clock::now_ms;
use crate::cloud::LISTED_AFTER_MS;
use crate::launch::{Outcome, QUOTA_PAUSE, Request, find, in_doubt, launched, listed_late, with_key};
use crate::plan::plan;
use crate::pool::Pool;
use crate::record::{Host, Record};
use crate::state_reason::EndedBy;
use crate::terminate;
use std::time::Duration;
use wharfinger_adapter::{Failure, Journal, ProvisionJob, Provisioned};

/// Maximum number of launches in one call. After them the broker decides when the next call comes.
const LAUNCHES_MAX: u32 = 4;

/// The pause after a launch that another one cannot better. Each costs money until the operator acts.
const FUTILE_PAUSE: Backoff = Backoff { first: Duration::from_secs(10), most: Duration::from_secs(900) };

/// Makes the host of a job, or continues a call that was cut off.
pub(crate) async fn provision(pool: &Pool, job: &ProvisionJob, journal: &dyn Journal) -> Result<Provisioned, Failure> {
    let resource = &job.resource;
    let mut record = Record::read(resource.handle.as_deref())?;
    // A request of an earlier call may have launched an instance, whatever the answer to this one.
    let mut doubtful = record.is_some();
    let mut launches = 0;
    // The latest instance that ended before it was a host.
    let mut ended: Option<Ended> = None;
    loop {
        let next = match record.take() {
            // A request is stored when it is made. Until then it can be planned anew.
            None => {
                record = Some(plan(pool, resource, 1, ended.as_ref())?);
                continue;
            }
            Some(Record::Over { attempt }) => {
                if launches >= LAUNCHES_MAX {
                    return Err(gave_up(launches, ended.as_ref()));
                }
                doubtful = false;
                record = Some(plan(pool, resource, attempt + 1, ended.as_ref())?);
                continue;
            }
            Some(Record::Launching { attempt, since_ms, asked_ms, launch, host_key, key_stage, refused_ms }) => {
                launches += 1;
                let mut request = Request { attempt, since_ms, asked_ms, launch, host_key, key_stage, journal };
                // The launch is under way until the owner of the instance is known.
                let _under_way = pool.account.launching();
                let outcome = match refused_ms {
                    None => match with_key(pool, &request.launch, &request.host_key)? {
                        Some(whole) => launched(pool, resource, &mut request, &whole, doubtful).await?,
                        // The request cannot be repeated, and may have been made.
                        None => match find(pool, resource, &request.launch).await? {
                            Some(found) => Outcome::Launched(found),
                            None => Outcome::Doubt(in_doubt(LISTED_AFTER_MS)),
                        },
                    },
                    Some(refused_ms) => listed_late(pool, resource, &request.launch, refused_ms).await?,
                };
                match outcome {
                    Outcome::Launched(instance) => {
                        let host = request.host(&instance);
                        pool.account.owned(&pool.name, &resource.resource, &host);
                        pool.account.launched(&host);
                        let resource = &resource.resource;
                        let Host { instance, instance_type, zone, spot, .. } = &host;
                        tracing::info!(
                            pool = pool.name,
                            resource,
                            instance,
                            instance_type,
                            zone,
                            spot,
                            attempt,
                            "launched"
                        );
                        Record::Launched { attempt, since_ms: now_ms(), host }
                    }
                    Outcome::Nothing(None) => Record::Over { attempt },
                    Outcome::Doubt(failure) => {
                        if refused_ms.is_none() {
                            journal.write(&request.record(Some(now_ms())).text()?).await?;
                        }
                        return Err(failure);
                    }
                    Outcome::Nothing(Some(failure)) => {
                        // The next attempt is another request, since the cause may be corrected until then.
                        journal.write(&Record::Over { attempt }.text()?).await?;
                        return Err(failure);
                    }
                }
            }
            Some(Record::Launched { attempt, since_ms, mut host }) => {
                match proved(&Boot { pool, job, journal, attempt, since_ms }, &mut host).await? {
                    Proved::Host(mut made, ssh) => {
                        made.handle = Record::Ready { attempt, host, ssh }.text()?;
                        return Ok(made);
                    }
                    Proved::Ended(end) => over(pool, journal, attempt, ended.insert(end), job.attempt).await?,
                    Proved::Unfit(failure) => return unfit(pool, job, journal, attempt, &host, failure).await,
                }
            }
            // Its host may have changed.
            Some(Record::Ready { attempt, host, .. }) => {
                record = Some(Record::Launched { attempt, since_ms: now_ms(), host });
                continue;
            }
        };
        journal.write(&next.text()?).await?;
        record = Some(next);
    }
}

/// Returns the record after an instance ended while it booted. An error: the operator acts before the next launch.
async fn over(
    pool: &Pool,
    journal: &dyn Journal,
    attempt: u32,
    ended: &Ended,
    failures: u32,
) -> Result<Record, Failure> {
    let record = Record::Over { attempt };
    match (ended.by(), &ended.reason) {
        (EndedBy::Configuration, Some(reason)) => {
            // The next instance is another request, since the cause of this end may be corrected until then.
            journal.write(&record.text()?).await?;
            let mut failure = Failure::configuration("LAUNCH_FAILED", format!("{ended}; {}", reason.remedy()));
            failure.retry_after = Some(FUTILE_PAUSE.after(failures.saturating_add(1)));
            return Err(failure);
        }
        (EndedBy::Quota, _) => {
            pool.account.with_stats(|stats| stats.quota_reached(ended.spot, QUOTA_PAUSE));
        }
        (EndedBy::Configuration | EndedBy::Capacity | EndedBy::Call | EndedBy::Provider, _) => {}
    }
    Ok(record)
}

/// Ends an instance that another instance of the image would resemble in its fault.
async fn unfit(
    pool: &Pool,
    job: &ProvisionJob,
    journal: &dyn Journal,
    attempt: u32,
    host: &Host,
    mut failure: Failure,
) -> Result<Provisioned, Failure> {
    // Without a confirmed end the record of the instance stays, and the next call ends it.
    if terminate::instance(pool, host).await.is_ok() {
        journal.write(&Record::Over { attempt }.text()?).await?;
    }
    failure.retry_after = Some(FUTILE_PAUSE.after(job.attempt.saturating_add(1)));
    Err(failure)
}

/// Returns the failure after the maximum number of launches.
fn gave_up(launches: u32, ended: Option<&Ended>) -> Failure {
    let Some(ended) = ended else {
        return Failure::provider("NO_CAPACITY", format!("{launches} launches came to nothing"));
    };
    let text = format!("{launches} launches came to nothing; the latest {ended}");
    match ended.by() {
        EndedBy::Capacity => Failure::provider("NO_CAPACITY", text),
        EndedBy::Quota => Failure::provider("QUOTA_REACHED", text),
        EndedBy::Configuration | EndedBy::Call | EndedBy::Provider => Failure::provider("EC2_FAILED", text),
    }
}
