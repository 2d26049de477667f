//! Ends instances. Success means that EC2 confirmed the end, or that the instance can no longer appear.

use crate::clock::now_ms;
use crate::cloud::{Instance, LISTED_AFTER_MS, Launch, Which};
use crate::error::Class;
use crate::pool::Pool;
use crate::rate_limit::Kind;
use crate::record::Host;
use crate::tags;
use std::time::Duration;
use wharfinger_adapter::Failure;

/// Minimum time before the end of an instance is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Ends one instance.
pub(crate) async fn instance(pool: &Pool, host: &Host) -> Result<(), Failure> {
    let account = &pool.account;
    let doing = format!("terminating {}", host.instance);
    match account.call(Kind::Terminate, account.cloud.terminate(std::slice::from_ref(&host.instance))).await {
        Ok(()) => {}
        // An unknown id may become known later.
        Err(error) if error.class == Class::NotFound => {}
        Err(error) => return Err(error.failure(&doing)),
    }
    let which = Which::Ids(vec![host.instance.clone()]);
    let found = account.all_instances(&which).await.map_err(|error| error.failure(&doing))?;
    match found.into_iter().find(|instance| instance.id == host.instance) {
        Some(instance) => {
            let ended = instance.state.is_ended();
            account.saw(instance);
            if ended { Ok(()) } else { Err(not_yet(&host.instance, "EC2 has not confirmed its end")) }
        }
        None if now_ms() - host.launched_ms > LISTED_AFTER_MS => Ok(()),
        None => Err(not_yet(&host.instance, "it is new, and EC2 does not list it yet")),
    }
}

/// Ends the instances of a resource whose launch has no known outcome since `since_ms`.
pub(crate) async fn launched(pool: &Pool, resource: &str, launch: &Launch, since_ms: i64) -> Result<(), Failure> {
    let account = &pool.account;
    let which = Which::Tagged(tags::RESOURCE, resource.to_string());
    let doing = "listing the instances of a launch without a known outcome";
    let mut found = account.all_instances(&which).await.map_err(|error| error.failure(doing))?;
    found.retain(|instance| instance.tags.get(tags::DEPLOYMENT) == Some(&pool.config.deployment));
    let is_alive = |instance: &&Instance| !instance.state.is_ended();
    let alive: Vec<String> = found.iter().filter(is_alive).map(|instance| instance.id.clone()).collect();
    if !alive.is_empty() {
        let answer = account.call(Kind::Terminate, account.cloud.terminate(&alive)).await;
        answer.map_err(|error| error.failure("terminating the instances of a launch without a known outcome"))?;
        return Err(not_yet(&alive.join(", "), "its end was requested, and EC2 has not confirmed it"));
    }
    // One client token launches one instance, so a listed one is the last.
    let attempt = launch.tags.get(tags::ATTEMPT);
    let is_known = found.iter().any(|instance| instance.tags.get(tags::ATTEMPT) == attempt);
    if is_known || now_ms() - since_ms > LISTED_AFTER_MS {
        return Ok(());
    }
    Err(not_yet("without a known id", "EC2 may list the instance of a launch request without an answer later"))
}

fn not_yet(instance: &str, why: &str) -> Failure {
    let mut failure = Failure::provider("NOT_TERMINATED_YET", format!("instance {instance}: {why}"));
    failure.retry_after = Some(LOOK_AGAIN);
    failure
}
