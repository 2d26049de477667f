//! What the adapter asks of EC2 and SQS: a trait, so that all that decides is built and tested without the SDK.
//!
//! One value serves one region. Every call is one request: who repeats it, and when, is decided above.

use crate::doctor::Trial;
use crate::error::CloudError;
use crate::notices::Hook;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// EC2 lists an instance this long after the request for it at the latest. Its lists are eventually consistent: the lag is
/// seconds as a rule, and minutes at times. Every decision that an instance does not exist waits for this long.
pub(crate) const LISTED_AFTER_MS: i64 = 300_000;

/// One spot pool: a type in a zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Instance type.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// The subnet in it.
    pub subnet: String,
}

/// The whole request for one instance, as it is written down before the call and repeated after a crash, bit for bit.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Client token: the same again is the same launch.
    pub token: String,
    /// Spot, or on demand.
    pub spot: bool,
    /// AMI id or `resolve:ssm:…`.
    pub image: String,
    /// Where it may be: one place is asked for by RunInstances, several by a fleet.
    pub places: Vec<Place>,
    /// The launch template that it is made from; a fleet needs one.
    pub template: Option<Template>,
    /// Security group ids.
    pub security_groups: Vec<String>,
    /// Name of the instance profile.
    pub instance_profile: Option<String>,
    /// Device and size in GiB of the root volume.
    pub root_volume: Option<(String, u32)>,
    /// User data as text. What EC2 gets holds the private host key of this one instance, what is stored does not.
    pub user_data: String,
    /// Tags of the instance and its volumes.
    pub tags: BTreeMap<String, String>,
}

/// Prints all but the user data, which may hold a private key.
impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            token,
            spot,
            image,
            places,
            template,
            security_groups,
            instance_profile,
            root_volume,
            user_data,
            tags,
        } = self;
        f.debug_struct("Launch")
            .field("token", token)
            .field("spot", spot)
            .field("image", image)
            .field("places", places)
            .field("template", template)
            .field("security_groups", security_groups)
            .field("instance_profile", instance_profile)
            .field("root_volume", root_volume)
            .field("user_data", &format_args!("({} bytes)", user_data.len()))
            .field("tags", tags)
            .finish()
    }
}

impl Launch {
    /// Several places are the fleet's to choose from.
    pub fn is_fleet(&self) -> bool {
        self.places.len() > 1
    }
}

/// A launch template, by id or name, and which version of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Template {
    /// `lt-…`, or its name.
    pub name: String,
    /// A number, `$Default` or `$Latest`.
    pub version: String,
}

/// What a template of ours says: all that is the same for every instance of a pool. User data, image and the tags of the
/// instance come with each fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSpec {
    /// Its name; tells what it says, so that one of this name says just this.
    pub name: String,
    /// Security group ids.
    pub security_groups: Vec<String>,
    /// Name of the instance profile.
    pub instance_profile: Option<String>,
    /// Device and size in GiB of the root volume.
    pub root_volume: Option<(String, u32)>,
    /// Tags of volumes, and of the template itself.
    pub tags: BTreeMap<String, String>,
}

/// An instance that was launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Its id.
    pub instance: String,
    /// Its type, if the answer tells.
    pub instance_type: Option<String>,
    /// Its zone, if the answer tells.
    pub zone: Option<String>,
}

/// Where an instance stands. Anything else that EC2 may say some day is `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Being started.
    Pending,
    /// Running.
    Running,
    /// On its way to the end.
    ShuttingDown,
    /// No more.
    Terminated,
    /// On its way to a stop.
    Stopping,
    /// Stopped.
    Stopped,
    /// Not known here.
    Other,
}

impl State {
    /// It does not work for anybody any more.
    pub fn is_over(self) -> bool {
        match self {
            State::ShuttingDown | State::Terminated | State::Stopping | State::Stopped => true,
            State::Pending | State::Running | State::Other => false,
        }
    }

    /// It costs nothing more and will not come back.
    pub fn is_ended(self) -> bool {
        matches!(self, State::ShuttingDown | State::Terminated)
    }

    /// As EC2 writes it.
    pub fn from_name(name: &str) -> Self {
        match name {
            "pending" => State::Pending,
            "running" => State::Running,
            "shutting-down" => State::ShuttingDown,
            "terminated" => State::Terminated,
            "stopping" => State::Stopping,
            "stopped" => State::Stopped,
            _ => State::Other,
        }
    }
}

/// An instance as DescribeInstances tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// `StateReason.Code`: why.
    pub reason: Option<String>,
    /// When it went there, as far as `StateTransitionReason` tells; milliseconds since the epoch.
    pub since_unix_ms: Option<i64>,
    /// Address in the VPC.
    pub private_address: Option<String>,
    /// Address on the Internet.
    pub public_address: Option<String>,
    /// Instance type.
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// Bought as spot.
    pub spot: bool,
    /// When it was launched, milliseconds since the epoch.
    pub launched_unix_ms: i64,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// Which instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those with this tag, whatever their state.
    Tagged(&'static str, String),
    /// Of these ids (at most 200) those that are there: an id that is not known is no error, since it is asked by a filter.
    Ids(Vec<String>),
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// How to ask for the next one.
    pub next: Option<String>,
}

/// What is scheduled for an instance, or wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub instance: String,
    /// One of its status checks fails.
    pub impaired: bool,
    /// Scheduled events that are not over.
    pub events: Vec<Event>,
}

/// A scheduled event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// `instance-retirement` and the like.
    pub code: String,
    /// Not before this time, milliseconds since the epoch.
    pub not_before_unix_ms: Option<i64>,
    /// In words; begins with `[Completed]` or `[Canceled]` when it is over.
    pub description: String,
}

/// Which statuses; filters that EC2 would AND are asked for one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// With scheduled events.
    Events,
    /// Whose instance check fails.
    InstanceImpaired,
    /// Whose system check fails.
    SystemImpaired,
}

/// A message of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What deletes it.
    pub receipt: String,
    /// Its text.
    pub body: String,
    /// How often it was received, this time among them.
    pub received: u32,
}

/// What a fleet request came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetAnswer {
    /// What was launched.
    pub launched: Vec<Launched>,
    /// What was not, by place, if the answer tells the place.
    pub errors: Vec<(Option<Place>, CloudError)>,
}

/// EC2 and SQS of one region.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// RunInstances for the first place of the launch, by its token. Never repeated inside.
    async fn run_instance(&self, launch: &Launch) -> Result<Launched, CloudError>;

    /// CreateLaunchTemplate. One that is there already is success: its name tells what it says.
    async fn create_template(&self, spec: &TemplateSpec) -> Result<(), CloudError>;

    /// CreateFleet (`instant`, one instance) by the launch's token. Never repeated inside.
    async fn create_fleet(&self, launch: &Launch) -> Result<FleetAnswer, CloudError>;

    /// DeleteLaunchTemplate. One that is not there is success.
    async fn delete_template(&self, name: &str) -> Result<(), CloudError>;

    /// Names of the templates of a deployment, with when they were made (milliseconds since the epoch).
    async fn templates(&self, deployment: &str, page: Option<String>) -> Result<Page<(String, i64)>, CloudError>;

    /// DescribeInstances.
    async fn instances(&self, which: &Which, page: Option<String>) -> Result<Page<Instance>, CloudError>;

    /// DescribeInstanceStatus of what runs.
    async fn statuses(&self, ask: Ask, page: Option<String>) -> Result<Page<Status>, CloudError>;

    /// TerminateInstances, at most 50. One id that is not known fails the call ([`crate::error::Class::NotFound`]).
    async fn terminate(&self, instances: &[String]) -> Result<(), CloudError>;

    /// ReceiveMessage: up to ten, waits up to 20 seconds for the first; hidden from others for 30.
    async fn receive(&self, queue: &str) -> Result<Vec<Message>, CloudError>;

    /// Asks with `DryRun` whether it may be done.
    async fn try_out(&self, trial: &Trial, launch: &Launch) -> Result<(), CloudError>;

    /// The queue's policy, as JSON; empty if it has none.
    async fn queue_policy(&self, queue: &str) -> Result<String, CloudError>;

    /// SendMessage.
    async fn send(&self, queue: &str, body: &str) -> Result<(), CloudError>;

    /// ReceiveMessage that hides what it finds for a second only, so that a broker on the same queue hears it all the same.
    async fn peek(&self, queue: &str) -> Result<Vec<Message>, CloudError>;

    /// CompleteLifecycleAction with `CONTINUE`. One that waits no more is success.
    async fn complete_hook(&self, hook: &Hook) -> Result<(), CloudError>;

    /// DeleteMessageBatch, at most ten.
    async fn delete_messages(&self, queue: &str, receipts: &[String]) -> Result<(), CloudError>;
}

/// The time in `User initiated (2026-11-28 03:00:00 GMT)`; EC2 tells it nowhere else, and not always there.
#[cfg(any(test, feature = "sdk"))]
pub(crate) fn transition_time(text: &str) -> Option<i64> {
    let time = text.split_once('(')?.1.split_once(" GMT)")?.0;
    crate::notices::rfc3339(&format!("{time}Z"))
}

#[cfg(test)]
mod tests {
    use super::transition_time;

    #[test]
    fn the_time_of_a_transition_is_read_if_there_is_one() {
        let told = transition_time("Service initiated (2026-11-28 03:00:00 GMT)");
        assert_eq!(told, crate::notices::rfc3339("2026-11-28T03:00:00Z"));
        for other in ["", "Server.SpotInstanceTermination", "User initiated (yesterday GMT)", "User initiated ()"] {
            assert_eq!(transition_time(other), None, "{other}");
        }
    }
}
