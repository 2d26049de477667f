//! Tries each call to AWS that a pool needs, and launches nothing. Reads are made; other calls use `DryRun`, which EC2 answers by
//! permission alone.

use crate::clock::now_ms;
use crate::cloud::{Ask, Cloud, Launch, Message, Page, Template, Trial, Which};
use crate::config::{Config, Market};
use crate::error::{Class, CloudError};
use crate::tags;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Maximum wait for the test event.
const EVENT_WITHIN: Duration = Duration::from_secs(10);

/// Result of one trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Good,
    /// It fails, and a pool needs it.
    Bad,
    /// It fails, and a pool works without it.
    Minor,
    /// It could not be tried.
    Untried,
}

/// One trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The permission in the words of IAM, or a setting.
    pub what: String,
    /// Its result.
    pub health: Health,
    /// The details and the remedy.
    pub text: String,
}

fn good(what: &str, text: impl Into<String>) -> Finding {
    Finding { what: what.to_string(), health: Health::Good, text: text.into() }
}

/// Tries all calls of one pool, which takes some seconds.
pub async fn examine(cloud: &dyn Cloud, pool: &str, config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    let listed = cloud.instances(&Which::Tagged(tags::DEPLOYMENT, config.deployment.clone()), None).await;
    let ours = match &listed {
        Ok(page) => page.items.iter().find(|instance| !instance.state.is_ended()).map(|instance| instance.id.clone()),
        Err(_) => None,
    };
    // Without credentials or a connection all other trials have the same result.
    if let Err(error) = &listed
        && (error.class == Class::Credentials || error.class == Class::Unknown)
    {
        let text = match error.class {
            Class::Credentials => "provide credentials by environment, profile, SSO or instance role",
            _ => "check the network, the region and `endpoint`",
        };
        return vec![Finding { what: "credentials".into(), health: Health::Bad, text: format!("{error}; {text}") }];
    }
    found.push(good("credentials", "AWS accepts them"));
    found.push(judge("ec2:DescribeInstances", Health::Bad, listed.map(drop)));
    let statuses = cloud.statuses(Ask::Events, None).await;
    found.push(judge("ec2:DescribeInstanceStatus", Health::Minor, statuses.map(drop)));
    let launch = sample(pool, config);
    // A launch in one place has no template of a fleet.
    let alone = Launch { template: config.template(), ..launch.clone() };
    found.push(judge("ec2:RunInstances, ec2:CreateTags", Health::Bad, cloud.try_out(&Trial::Run, &alone).await));
    if launch.is_fleet() {
        found.push(judge("ec2:CreateFleet", Health::Bad, cloud.try_out(&Trial::Fleet, &launch).await));
        if config.launch_template.is_none() {
            let made = cloud.try_out(&Trial::Template, &launch).await;
            found.push(judge("ec2:CreateLaunchTemplate", Health::Bad, made));
            let gone = cloud.try_out(&Trial::DeleteTemplate, &launch).await;
            found.push(judge("ec2:DeleteLaunchTemplate", Health::Minor, gone));
            let listed = cloud.templates(&config.deployment, None).await;
            found.push(judge("ec2:DescribeLaunchTemplates", Health::Minor, listed.map(drop::<Page<_>>)));
        }
    }
    let what = "ec2:TerminateInstances";
    found.push(match ours {
        Some(id) => judge(what, Health::Bad, cloud.try_out(&Trial::Terminate(id), &launch).await),
        None => Finding {
            what: what.into(),
            health: Health::Untried,
            text: "the deployment has no instance to try it on; run this again when it has one".into(),
        },
    });
    match &config.queue {
        Some(queue) => found.extend(examine_queue(cloud, queue).await),
        None => found.push(Finding {
            what: "queue".into(),
            health: Health::Minor,
            text: "none is configured: notices come from the hosts and from lists, some seconds later".into(),
        }),
    }
    found
}

async fn examine_queue(cloud: &dyn Cloud, queue: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    match cloud.queue_policy(queue).await {
        Ok(policy) if policy.contains("events.amazonaws.com") => {
            found.push(good("queue policy", "EventBridge may send to the queue"));
        }
        Ok(policy) if policy.contains("sns.amazonaws.com") => {
            found.push(good("queue policy", "SNS topics may send to the queue"));
        }
        Ok(_) => found.push(Finding {
            what: "queue policy".into(),
            health: Health::Bad,
            text: "it does not allow events.amazonaws.com to send; use the policy of docs/ec2/cloudformation.yaml"
                .into(),
        }),
        Err(error) => found.push(judge("sqs:GetQueueAttributes", Health::Minor, Err(error))),
    }
    // The event names an unknown instance. A broker on the queue deletes and counts it.
    let mark = format!("i-{:017x}", now_ms());
    let body = json!({
        "source": "wharfinger.doctor",
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "detail": { "instance-id": mark, "instance-action": "terminate" },
    });
    if let Err(error) = cloud.send(queue, &body.to_string()).await {
        let why = format!("{error}; the doctor needs it to try the queue, and the broker does not");
        found.push(Finding { what: "sqs:SendMessage".into(), health: Health::Untried, text: why });
        return found;
    }
    let waited = tokio::time::timeout(EVENT_WITHIN, async {
        loop {
            let messages = cloud.peek(queue).await?;
            let own: Vec<&Message> = messages.iter().filter(|message| message.body.contains(&mark)).collect();
            if let Some(message) = own.first() {
                return cloud.delete_messages(queue, std::slice::from_ref(&message.receipt)).await;
            }
        }
    });
    let what = "sqs:ReceiveMessage, sqs:DeleteMessage";
    found.push(match waited.await {
        Ok(said) => {
            let said = judge(what, Health::Bad, said);
            if said.health == Health::Good { good(what, "the test event arrived") } else { said }
        }
        Err(_) => good(what, "another receiver took the test event: a broker works on this queue"),
    });
    found
}

fn judge(what: &str, otherwise: Health, said: Result<(), CloudError>) -> Finding {
    match said {
        Ok(()) => good(what, "allowed"),
        Err(error) => {
            let remedy = match error.class {
                Class::Configuration if error.code.starts_with("InvalidAMIID") => "correct `image`",
                Class::Configuration if error.code.starts_with("InvalidSubnet") => "correct `subnets`",
                Class::Configuration if error.code.starts_with("InvalidGroup") => "correct `security_groups`",
                Class::Configuration => "compare with the policy of docs/ec2/policy.json",
                Class::Quota => "raise the quota in Service Quotas",
                _ => "try again",
            };
            Finding { what: what.to_string(), health: otherwise, text: format!("{error}; {remedy}") }
        }
    }
}

/// A launch request of the pool.
fn sample(pool: &str, config: &Config) -> Launch {
    let spec = config.template_spec(pool);
    let mut own: BTreeMap<String, String> = spec.tags.clone();
    own.insert(tags::RESOURCE.to_string(), "doctor".to_string());
    Launch {
        token: format!("doctor-{}", now_ms()),
        spot: config.market != Market::OnDemand,
        image: config.image.clone(),
        places: config.places(),
        template: config.template().or(Some(Template { name: spec.name, version: "$Default".into() })),
        security_groups: config.security_groups.clone(),
        instance_profile: config.instance_profile.clone(),
        root_volume: config.root_volume_gb.map(|size| (config.root_device.clone(), size)),
        user_data: "#cloud-config\n{}\n".to_string(),
        tags: own,
    }
}
