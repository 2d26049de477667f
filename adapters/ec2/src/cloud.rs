//! The calls to EC2, SQS and Auto Scaling as a trait, so that all decisions are built and tested without the SDK.
//!
//! One value serves one region. Each call is one request. The callers decide about repetitions.

use crate::error::CloudError;
use crate::state_reason::StateReason;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// EC2 lists an instance this long after the request for it at the latest. Its lists are eventually consistent: the lag is
/// seconds as a rule, and minutes at times. Every decision that an instance does not exist waits for this long.
pub(crate) const LISTED_AFTER_MS: i64 = 300_000;

/// A place: an instance type in a zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Instance type.
    #[serde(rename = "type")]
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// The subnet in the zone.
    pub subnet: String,
}

/// The request for one instance. It is stored before the call, and repeated unchanged after a crash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Client token. Requests with the same token launch one instance.
    pub token: String,
    /// Whether the market is spot.
    pub spot: bool,
    /// AMI id or `resolve:ssm:…`.
    pub image: String,
    /// Possible places. One is a call of RunInstances, several are a fleet.
    pub places: Vec<Place>,
    /// The launch template. A fleet needs one.
    pub template: Option<Template>,
    /// Security group ids.
    pub security_groups: Vec<String>,
    /// Name of the instance profile.
    pub instance_profile: Option<String>,
    /// Device and size in GiB of the root volume.
    pub root_volume: Option<(String, u32)>,
    /// User data as text. EC2 gets it with the private host key of the instance; the stored text lacks the key.
    pub user_data: String,
    /// Tags of the instance and its volumes.
    pub tags: BTreeMap<String, String>,
}

/// Prints the fields without the user data, which may hold a private key.
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
    /// Whether the request is a fleet, which chooses from several places.
    pub fn is_fleet(&self) -> bool {
        self.places.len() > 1
    }
}

/// A launch template, by id or name, and its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Template {
    /// Id (`lt-…`) or name.
    pub name: String,
    /// A number, `$Default` or `$Latest`.
    pub version: String,
}

/// Content of a template that the broker creates: the settings that all instances of a pool share. User data, image and the tags of
/// the instance come with each fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSpec {
    /// Its name, with a hash of the content: templates of one name have one content.
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

/// A launched instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Its id.
    pub instance: String,
    /// Its type, if the answer has it.
    pub instance_type: Option<String>,
    /// Its zone, if the answer has it.
    pub zone: Option<String>,
}

/// State of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It starts.
    Pending,
    /// It runs.
    Running,
    /// It is being terminated.
    ShuttingDown,
    /// It is terminated.
    Terminated,
    /// It is being stopped.
    Stopping,
    /// It is stopped.
    Stopped,
    /// A state of a later version of EC2.
    Other,
}

impl State {
    /// Whether it has stopped serving, for any reason.
    pub fn is_over(self) -> bool {
        match self {
            State::ShuttingDown | State::Terminated | State::Stopping | State::Stopped => true,
            State::Pending | State::Running | State::Other => false,
        }
    }

    /// Whether it ends for good and costs nothing more.
    pub fn is_ended(self) -> bool {
        matches!(self, State::ShuttingDown | State::Terminated)
    }

    /// Parses EC2's name of a state.
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

/// EC2's name of the state.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Pending => "pending",
            State::Running => "running",
            State::ShuttingDown => "shutting-down",
            State::Terminated => "terminated",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
            State::Other => "in an unknown state",
        })
    }
}

/// An instance in the answer of DescribeInstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: State,
    /// EC2's reason for the state.
    pub reason: Option<StateReason>,
    /// Time of the latest change of state, if `StateTransitionReason` has it; milliseconds since the epoch.
    pub since_unix_ms: Option<i64>,
    /// Private address, in the VPC.
    pub private_address: Option<String>,
    /// Public address.
    pub public_address: Option<String>,
    /// Instance type.
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// Whether it is a spot instance.
    pub spot: bool,
    /// Time of its launch, milliseconds since the epoch.
    pub launched_unix_ms: i64,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Instance {
    /// The state with EC2's reason for it.
    pub(crate) fn state_text(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} ({reason})", self.state),
            None => format!("{} (EC2 gives no reason)", self.state),
        }
    }
}

/// Selection of instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Instances with this tag, in any state.
    Tagged(&'static str, String),
    /// Instances with these ids, at most 200. The call uses a filter, so an unknown id is not an error.
    Ids(Vec<String>),
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items of the page.
    pub items: Vec<T>,
    /// Token of the next page.
    pub next: Option<String>,
}

/// Scheduled events and status checks of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its id.
    pub instance: String,
    /// Whether one of its status checks fails.
    pub impaired: bool,
    /// Scheduled events.
    pub events: Vec<Event>,
}

/// A scheduled event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// Code, such as `instance-retirement`.
    pub code: String,
    /// Earliest time of the event, milliseconds since the epoch.
    pub not_before_unix_ms: Option<i64>,
    /// Text, which begins with `[Completed]` or `[Canceled]` after the event.
    pub description: String,
}

/// Selection of statuses. EC2 combines filters with AND, so each selection is a call of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// Instances with scheduled events.
    Events,
    /// Instances with a failed instance check.
    InstanceImpaired,
    /// Instances with a failed system check.
    SystemImpaired,
}

/// A message of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Receipt, which deletes the message.
    pub receipt: String,
    /// Its text.
    pub body: String,
    /// Number of deliveries, including this one.
    pub received: u32,
}

/// Answer to a fleet request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetAnswer {
    /// Launched instances.
    pub launched: Vec<Launched>,
    /// Errors, with the place if the answer has it.
    pub errors: Vec<(Option<Place>, CloudError)>,
}

/// A lifecycle hook of an Auto Scaling group that waits, for one instance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Hook {
    /// Name of the group.
    #[serde(rename = "AutoScalingGroupName")]
    pub group: String,
    /// Name of the hook.
    #[serde(rename = "LifecycleHookName")]
    pub name: String,
    /// Token of this transition.
    #[serde(rename = "LifecycleActionToken")]
    pub token: String,
    /// Id of the instance.
    #[serde(rename = "EC2InstanceId")]
    pub instance: String,
    #[serde(rename = "LifecycleTransition")]
    pub(crate) transition: String,
}

/// A call that the doctor tries with `DryRun`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// RunInstances, with tags.
    Run,
    /// CreateFleet, of type `instant`.
    Fleet,
    /// CreateLaunchTemplate, with tags.
    Template,
    /// DeleteLaunchTemplate, of a missing one.
    DeleteTemplate,
    /// TerminateInstances on this one.
    Terminate(String),
}

/// EC2 and SQS of one region.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// RunInstances for the first place of the launch, with its token. The implementation does not repeat it.
    async fn run_instance(&self, launch: &Launch) -> Result<Launched, CloudError>;

    /// CreateLaunchTemplate. A template of this name is success, since the name stands for the content.
    async fn create_template(&self, spec: &TemplateSpec) -> Result<(), CloudError>;

    /// CreateFleet (`instant`, one instance) with the launch's token. The implementation does not repeat it.
    async fn create_fleet(&self, launch: &Launch) -> Result<FleetAnswer, CloudError>;

    /// DeleteLaunchTemplate. A missing template is success.
    async fn delete_template(&self, name: &str) -> Result<(), CloudError>;

    /// DescribeLaunchTemplates: the names of a deployment's templates, with the time of their creation in milliseconds since the epoch.
    async fn templates(&self, deployment: &str, page: Option<String>) -> Result<Page<(String, i64)>, CloudError>;

    /// DescribeInstances: one page of the selected instances. `page`: its token, or `None` for the first page.
    async fn instances(&self, which: &Which, page: Option<String>) -> Result<Page<Instance>, CloudError>;

    /// DescribeInstanceStatus of running instances.
    async fn statuses(&self, ask: Ask, page: Option<String>) -> Result<Page<Status>, CloudError>;

    /// TerminateInstances, at most 50. One unknown id fails the call ([`crate::error::Class::NotFound`]).
    async fn terminate(&self, instances: &[String]) -> Result<(), CloudError>;

    /// ReceiveMessage: at most ten messages. It waits for the first for at most 20 seconds, and hides them for 30.
    async fn receive(&self, queue: &str) -> Result<Vec<Message>, CloudError>;

    /// Makes a call with `DryRun`, which checks the permission.
    async fn try_out(&self, trial: &Trial, launch: &Launch) -> Result<(), CloudError>;

    /// Returns the queue's policy as JSON; empty if it has none.
    async fn queue_policy(&self, queue: &str) -> Result<String, CloudError>;

    /// SendMessage to the queue, for the doctor's test event.
    async fn send(&self, queue: &str, body: &str) -> Result<(), CloudError>;

    /// ReceiveMessage that hides the messages for one second, so that a broker on the same queue receives them, too.
    async fn peek(&self, queue: &str) -> Result<Vec<Message>, CloudError>;

    /// CompleteLifecycleAction with `CONTINUE`. A hook that no longer waits is success.
    async fn complete_hook(&self, hook: &Hook) -> Result<(), CloudError>;

    /// DeleteMessageBatch, at most ten messages.
    async fn delete_messages(&self, queue: &str, receipts: &[String]) -> Result<(), CloudError>;
}
