//! Makes launch requests and determines their outcome. EC2's answer may be lost, and its lists are late, so a request without a
//! known outcome is repeated unchanged, and none replaces it before the outcome is known.

use crate::backoff::{Backoff, jitter};
use crate::clock::now_ms;
use crate::cloud::{Instance, LISTED_AFTER_MS, Launch, Launched, Place, Which};
use crate::error::{Class, CloudError};
use crate::pool::Pool;
use crate::rate_limit::Kind;
use crate::record::{Host, KeyStage, Record};
use crate::{tags, user_data};
use std::time::Duration;
use tokio::time::sleep;
use wharfinger_adapter::{Failure, Journal, ResourceJob};
use wharfinger_ssh::HostKeyType;

/// Maximum number of repetitions of a request in one call.
const REPEATS_MAX: u32 = 6;

/// The pause before a request without an answer is repeated.
const REPEAT_PAUSE: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(16) };

/// Time for which a market is not used after its quota was reached.
pub(crate) const QUOTA_PAUSE: Duration = Duration::from_secs(300);

/// A request for an instance, and the journal that stores it.
pub(crate) struct Request<'a> {
    pub(crate) attempt: u32,
    pub(crate) since_ms: i64,
    pub(crate) asked_ms: Option<i64>,
    pub(crate) launch: Box<Launch>,
    pub(crate) host_key: String,
    pub(crate) key_stage: KeyStage,
    pub(crate) journal: &'a dyn Journal,
}

impl Request<'_> {
    /// The request as it is stored.
    pub(crate) fn record(&self, refused_ms: Option<i64>) -> Record {
        Record::Launching {
            attempt: self.attempt,
            since_ms: self.since_ms,
            asked_ms: self.asked_ms,
            launch: self.launch.clone(),
            host_key: self.host_key.clone(),
            key_stage: self.key_stage.clone(),
            refused_ms,
        }
    }

    /// Stores the request with the present time. The request to EC2 follows at once, so that EC2 lists the
    /// instance at most [`LISTED_AFTER_MS`] after the stored time.
    async fn store(&mut self) -> Result<(), Failure> {
        self.asked_ms = Some(now_ms());
        self.journal.write(&self.record(None).text()?).await
    }

    /// The host that the request launched.
    pub(crate) fn host(&self, launched: &Launched) -> Host {
        let first = self.launch.places.first();
        let of_place = |value: &Option<String>, of: fn(&Place) -> &String| {
            value.clone().or_else(|| first.map(|place| of(place).clone())).unwrap_or_default()
        };
        Host {
            instance: launched.instance.clone(),
            instance_type: of_place(&launched.instance_type, |place| &place.instance_type),
            zone: of_place(&launched.zone, |place| &place.zone),
            spot: self.launch.spot,
            launched_ms: now_ms(),
            host_key: self.host_key.clone(),
            key_stage: self.key_stage.clone(),
        }
    }
}

/// Returns the request with the private host key, which is stored nowhere. `None`: the login key has changed since the request was
/// stored, so the host key cannot be derived again.
pub(crate) fn with_key(pool: &Pool, launch: &Launch, host_key: &str) -> Result<Option<Launch>, Failure> {
    // The type is the request's own. The setting may have changed since.
    let kind = HostKeyType::of(host_key).unwrap_or_default();
    let key = wharfinger_ssh::host_key_from(pool.config.login_key()?, &launch.token, kind)?;
    let user_data = user_data::filled(&launch.user_data, &key);
    if user_data != launch.user_data && key.public != host_key {
        return Ok(None);
    }
    Ok(Some(Launch { user_data, ..launch.clone() }))
}

/// Outcome of a request.
pub(crate) enum Outcome {
    /// It launched this instance.
    Launched(Launched),
    /// It launched nothing. A failure: no other request is made now.
    Nothing(Option<Failure>),
    /// EC2 refused it, and an earlier request with the same token may have launched an instance. It is neither repeated nor replaced
    /// until EC2's lists show the outcome.
    Doubt(Failure),
}

/// Makes the request, and repeats it unchanged until its outcome is known.
pub(crate) async fn launched(
    pool: &Pool,
    resource: &ResourceJob,
    request: &mut Request<'_>,
    launch: &Launch,
    mut doubtful: bool,
) -> Result<Outcome, Failure> {
    let mut repeats = 0;
    loop {
        let error = match ask(pool, request, launch).await? {
            Ok(launched) => return Ok(Outcome::Launched(launched)),
            Err(error) => error,
        };
        let (name, id) = (&pool.name, &resource.resource);
        tracing::info!(pool = name, resource = id, spot = launch.spot, class = ?error.class, "not launched: {error}");
        match error.class {
            Class::Throttle => {
                // Nothing was launched, and the rate limit adds a pause. The broker repeats a call that takes minutes.
                repeats += 1;
                if repeats >= REPEATS_MAX {
                    return Err(error.failure("launching"));
                }
                continue;
            }
            Class::Unknown | Class::NotFound => {
                if error.class == Class::NotFound {
                    // The template of the pool was removed, or is too new to be visible.
                    pool.account.without_template(&pool.template.name);
                }
                // Without a stored request the call for the template failed, and nothing was launched.
                doubtful |= request.asked_ms.is_some();
                repeats += 1;
                if repeats >= REPEATS_MAX {
                    let text =
                        format!("the outcome of the launch request is not known, and the request is repeated: {error}");
                    return Err(Failure::provider("LAUNCH_IN_DOUBT", text));
                }
                let pause = REPEAT_PAUSE.after(repeats);
                sleep(pause + jitter(pause)).await;
                continue;
            }
            Class::Capacity
            | Class::NotOffered
            | Class::Quota
            | Class::Configuration
            | Class::Credentials
            | Class::ParameterMismatch
            | Class::TokenSpent => {}
        }
        if error.class == Class::Quota {
            tracing::warn!(pool = name, spot = launch.spot, "the account's quota is reached: {error}");
            pool.account.with_stats(|stats| stats.quota_reached(launch.spot, QUOTA_PAUSE));
        }
        let for_operator = matches!(error.class, Class::Configuration | Class::Credentials);
        let failure = for_operator.then(|| error.failure("launching"));
        // An earlier request with the token may have launched an instance. A token whose instance is terminated is a definite answer.
        if (doubtful && error.class != Class::TokenSpent) || error.class == Class::ParameterMismatch {
            return Ok(match find(pool, resource, launch).await? {
                Some(found) => Outcome::Launched(found),
                None => Outcome::Doubt(failure.unwrap_or_else(|| in_doubt(LISTED_AFTER_MS))),
            });
        }
        return Ok(Outcome::Nothing(failure));
    }
}

/// Looks in EC2's lists for the instance of a request that EC2 refused after a lost answer.
pub(crate) async fn listed_late(
    pool: &Pool,
    resource: &ResourceJob,
    launch: &Launch,
    refused_ms: i64,
) -> Result<Outcome, Failure> {
    // The time is read before the list, so that the list is not older.
    let left = refused_ms.saturating_add(LISTED_AFTER_MS) - now_ms();
    Ok(match find(pool, resource, launch).await? {
        Some(found) => Outcome::Launched(found),
        None if left <= 0 => Outcome::Nothing(None),
        None => Outcome::Doubt(in_doubt(left)),
    })
}

pub(crate) fn in_doubt(left_ms: i64) -> Failure {
    let text = format!(
        "EC2 refused a launch request after an answer to it was lost; EC2's lists show in at most {} s whether there is an \
         instance, and no other request is made before",
        left_ms / 1000
    );
    Failure::provider("LAUNCH_IN_DOUBT", text)
}

/// Stores and makes one request. Places without capacity rest. The outer error is the journal's, and no request was made.
async fn ask(pool: &Pool, request: &mut Request<'_>, launch: &Launch) -> Result<Result<Launched, CloudError>, Failure> {
    let account = &pool.account;
    let cool = account.settings().cool;
    let rest = |place: &Place| account.with_stats(|stats| stats.no_capacity(place, launch.spot, cool));
    let refused = |place: &Place, error: &CloudError| match error.class {
        Class::Capacity => rest(place),
        Class::NotOffered => account.with_stats(|stats| stats.not_offered(place, launch.spot, error.clone())),
        _ => {}
    };
    if !launch.is_fleet() {
        // The wait for the rate comes first, so that the stored time is the time of the request.
        account.turn(Kind::Launch).await;
        request.store().await?;
        let answer = account.answered(Kind::Launch, account.cloud.run_instance(launch).await);
        if let (Err(error), Some(place)) = (&answer, launch.places.first()) {
            refused(place, error);
        }
        return Ok(answer);
    }
    if launch.template.as_ref().is_some_and(|template| template.name == pool.template.name)
        && let Err(error) = account.with_template(&pool.template).await
    {
        return Ok(Err(error));
    }
    account.turn(Kind::Launch).await;
    request.store().await?;
    let answer = match account.answered(Kind::Launch, account.cloud.create_fleet(launch).await) {
        Ok(answer) => answer,
        Err(error) => {
            if error.class == Class::Capacity {
                launch.places.iter().for_each(rest);
            }
            return Ok(Err(error));
        }
    };
    // An error for one place rests that place alone.
    for (place, error) in &answer.errors {
        if let Some(place) = place {
            refused(place, error);
        }
    }
    let mut without = answer.errors.iter().filter(|(_, error)| error.class == Class::Capacity);
    if let Some(launched) = answer.launched.into_iter().next() {
        return Ok(Ok(launched));
    }
    // A failed fleet answers with HTTP 200, a list of errors and no instance.
    if without.any(|(place, _)| place.is_none()) || answer.errors.is_empty() {
        launch.places.iter().for_each(rest);
    }
    let first = |class: Class| answer.errors.iter().map(|(_, error)| error).find(|error| error.class == class).cloned();
    let error = first(Class::Capacity)
        .or_else(|| first(Class::Quota))
        .or_else(|| first(Class::Throttle))
        .or_else(|| first(Class::Unknown))
        .or_else(|| first(Class::Credentials))
        .or_else(|| first(Class::Configuration))
        .or_else(|| answer.errors.first().map(|(_, error)| error.clone()));
    let unexplained = || CloudError::from_code("UnfulfillableCapacity", "the fleet has no instance and no error");
    Ok(Err(error.unwrap_or_else(unexplained)))
}

/// Returns the instance of this attempt, by its tags.
pub(crate) async fn find(pool: &Pool, resource: &ResourceJob, launch: &Launch) -> Result<Option<Launched>, Failure> {
    let which = Which::Tagged(tags::RESOURCE, resource.resource.clone());
    let all = pool
        .account
        .all_instances(&which)
        .await
        .map_err(|error| error.failure("looking for the instance of a launch"))?;
    let attempt = launch.tags.get(tags::ATTEMPT);
    let ours = |instance: &Instance| {
        instance.tags.get(tags::DEPLOYMENT) == Some(&pool.config.deployment)
            && instance.tags.get(tags::ATTEMPT) == attempt
            && !instance.state.is_ended()
    };
    Ok(all.into_iter().find(ours).map(|instance| Launched {
        instance: instance.id,
        instance_type: Some(instance.instance_type),
        zone: Some(instance.zone),
    }))
}
