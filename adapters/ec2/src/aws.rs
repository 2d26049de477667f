//! EC2, SQS and Auto Scaling by the AWS SDK. No other file uses the SDK.
//!
//! The SDK makes a launch request once; `launch.rs` repeats it, since it knows what an earlier request may have done. The SDK repeats
//! other calls twice. Credentials come by the standard chain: environment, profile, SSO, process, container or instance role.

use crate::clock::transition_time;
use crate::cloud::{
    Ask, Cloud, Event, FleetAnswer, Hook, Instance, Launch, Launched, Message, Page, Place, State, Status,
    TemplateSpec, Trial, Which,
};
use crate::error::{Class, CloudError};
use crate::state_reason::StateReason;
use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::create_fleet::builders::CreateFleetFluentBuilder;
use aws_sdk_ec2::operation::create_launch_template::builders::CreateLaunchTemplateFluentBuilder;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types as ec2;
use aws_sdk_sqs::types as sqs;
use aws_smithy_types::base64;
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Time of a long poll in seconds. On a dead connection the call hangs until its own time limit.
const RECEIVE_WAIT_S: i32 = 20;

/// The services of one region.
pub(crate) struct Aws {
    region: String,
    endpoint: Option<String>,
    clients: OnceCell<Clients>,
}

struct Clients {
    /// Client for calls that may be repeated.
    ec2: aws_sdk_ec2::Client,
    /// Client for calls that are made once.
    once: aws_sdk_ec2::Client,
    sqs: aws_sdk_sqs::Client,
    scaling: aws_sdk_autoscaling::Client,
}

impl Aws {
    pub(crate) fn new(region: &str, endpoint: Option<&str>) -> Self {
        Self { region: region.to_string(), endpoint: endpoint.map(String::from), clients: OnceCell::new() }
    }

    /// Returns the clients. The first call creates them, since the search for credentials may use the network.
    async fn clients(&self) -> &Clients {
        self.clients
            .get_or_init(|| async {
                let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
                    .region(Region::new(self.region.clone()))
                    .retry_config(RetryConfig::standard().with_max_attempts(3))
                    .timeout_config(
                        TimeoutConfig::builder()
                            .connect_timeout(Duration::from_secs(4))
                            .operation_attempt_timeout(Duration::from_secs(15))
                            .operation_timeout(Duration::from_secs(40))
                            .build(),
                    );
                if let Some(endpoint) = &self.endpoint {
                    loader = loader.endpoint_url(endpoint);
                }
                let config = loader.load().await;
                let once = aws_sdk_ec2::config::Builder::from(&config)
                    .retry_config(RetryConfig::disabled())
                    .timeout_config(
                        TimeoutConfig::builder()
                            .connect_timeout(Duration::from_secs(4))
                            // EC2 answers a fleet request after it tried all places.
                            .operation_attempt_timeout(Duration::from_secs(60))
                            .build(),
                    )
                    .build();
                let sqs = aws_sdk_sqs::config::Builder::from(&config)
                    .retry_config(RetryConfig::disabled())
                    .timeout_config(
                        TimeoutConfig::builder()
                            .connect_timeout(Duration::from_secs(4))
                            .operation_attempt_timeout(Duration::from_secs(30))
                            .build(),
                    )
                    .build();
                Clients {
                    ec2: aws_sdk_ec2::Client::new(&config),
                    once: aws_sdk_ec2::Client::from_conf(once),
                    sqs: aws_sdk_sqs::Client::from_conf(sqs),
                    scaling: aws_sdk_autoscaling::Client::new(&config),
                }
            })
            .await
    }
}

/// Classifies an error by EC2's code. Without a code the outcome of the call is not known.
fn error<E, R>(error: SdkError<E, R>) -> CloudError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    if let SdkError::ServiceError(context) = &error
        && let Some(code) = context.err().meta().code()
    {
        let message = context.err().meta().message().unwrap_or("no message");
        return CloudError::from_code(code, message);
    }
    let message = DisplayErrorContext(&error).to_string();
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(one) = cause {
        if one.is::<CredentialsError>() {
            return CloudError { class: Class::Credentials, code: "NoCredentials".to_string(), message };
        }
        cause = one.source();
    }
    let code = match &error {
        SdkError::ConstructionFailure(_) => "ConstructionFailure",
        SdkError::TimeoutError(_) => "Timeout",
        SdkError::DispatchFailure(_) => "DispatchFailure",
        SdkError::ResponseError(_) => "ResponseError",
        _ => "ServiceError",
    };
    CloudError::unknown(code, message)
}

fn tag(key: &str, value: &str) -> ec2::Tag {
    ec2::Tag::builder().key(key).value(value).build()
}

fn tags(of: ec2::ResourceType, tags: &BTreeMap<String, String>) -> ec2::TagSpecification {
    let tags = tags.iter().map(|(key, value)| tag(key, value)).collect();
    ec2::TagSpecification::builder().resource_type(of).set_tags(Some(tags)).build()
}

fn filter(name: impl Into<String>, values: Vec<String>) -> ec2::Filter {
    ec2::Filter::builder().name(name).set_values(Some(values)).build()
}

fn place_of(overrides: &ec2::FleetLaunchTemplateOverrides, launch: &Launch) -> Option<Place> {
    let instance_type = overrides.instance_type()?.as_str();
    let subnet = overrides.subnet_id()?;
    launch.places.iter().find(|place| place.instance_type == instance_type && place.subnet == subnet).cloned()
}

fn instance(described: &ec2::Instance) -> Option<Instance> {
    let text = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(String::from);
    Some(Instance {
        id: text(described.instance_id())?,
        state: described
            .state()
            .and_then(|state| state.name())
            .map_or(State::Other, |name| State::from_name(name.as_str())),
        reason: described.state_reason().and_then(|reason| {
            let message = reason.message().unwrap_or_default().to_string();
            Some(StateReason { code: text(reason.code())?, message })
        }),
        since_unix_ms: described.state_transition_reason().and_then(transition_time),
        private_address: text(described.private_ip_address()),
        public_address: text(described.public_ip_address()),
        instance_type: described.instance_type().map(|name| name.as_str().to_string()).unwrap_or_default(),
        zone: text(described.placement().and_then(|placement| placement.availability_zone())).unwrap_or_default(),
        spot: described.instance_lifecycle().is_some_and(|life| *life == ec2::InstanceLifecycleType::Spot),
        launched_unix_ms: described.launch_time().and_then(|time| time.to_millis().ok()).unwrap_or(0),
        tags: described
            .tags()
            .iter()
            .filter_map(|tag| Some((tag.key()?.to_string(), tag.value().unwrap_or_default().to_string())))
            .collect(),
    })
}

fn status(described: &ec2::InstanceStatus) -> Option<Status> {
    let bad = |summary: Option<&ec2::InstanceStatusSummary>| {
        summary.and_then(|summary| summary.status()).is_some_and(|status| *status == ec2::SummaryStatus::Impaired)
    };
    Some(Status {
        instance: described.instance_id()?.to_string(),
        impaired: bad(described.instance_status()) || bad(described.system_status()),
        events: described
            .events()
            .iter()
            .map(|event| Event {
                id: event.instance_event_id().unwrap_or_default().to_string(),
                code: event.code().map(|code| code.as_str().to_string()).unwrap_or_default(),
                not_before_unix_ms: event.not_before().and_then(|time| time.to_millis().ok()),
                description: event.description().unwrap_or_default().to_string(),
            })
            .collect(),
    })
}

/// Turns the answer to a `DryRun` into its result. An allowed call is answered with an error, too.
fn tried<T>(said: Result<T, CloudError>) -> Result<(), CloudError> {
    match said {
        Err(error) if error.code == "DryRunOperation" => Ok(()),
        other => other.map(drop),
    }
}

impl Aws {
    async fn messages(&self, queue: &str, wait_s: i32, hidden_s: i32) -> Result<Vec<Message>, CloudError> {
        let answer = self
            .clients()
            .await
            .sqs
            .receive_message()
            .queue_url(queue)
            .max_number_of_messages(10)
            .wait_time_seconds(wait_s)
            .visibility_timeout(hidden_s)
            .message_system_attribute_names(sqs::MessageSystemAttributeName::ApproximateReceiveCount)
            .send()
            .await
            .map_err(error)?;
        let messages = answer.messages().iter().filter_map(|message| {
            let received = message
                .attributes()
                .and_then(|all| all.get(&sqs::MessageSystemAttributeName::ApproximateReceiveCount))
                .and_then(|count| count.parse().ok());
            Some(Message {
                receipt: message.receipt_handle()?.to_string(),
                body: message.body().unwrap_or_default().to_string(),
                received: received.unwrap_or(1),
            })
        });
        Ok(messages.collect())
    }

    async fn run_call(&self, launch: &Launch) -> Result<RunInstancesFluentBuilder, CloudError> {
        let Some(place) = launch.places.first() else {
            return Err(CloudError::from_code("InvalidParameterValue", "no place to launch in"));
        };
        let mut call = self
            .clients()
            .await
            .once
            .run_instances()
            .client_token(&launch.token)
            .min_count(1)
            .max_count(1)
            .instance_type(place.instance_type.as_str().into())
            .subnet_id(&place.subnet)
            .user_data(base64::encode(&launch.user_data))
            .instance_initiated_shutdown_behavior(ec2::ShutdownBehavior::Terminate)
            .metadata_options(
                ec2::InstanceMetadataOptionsRequest::builder()
                    .http_tokens(ec2::HttpTokensState::Required)
                    .http_put_response_hop_limit(1)
                    .http_endpoint(ec2::InstanceMetadataEndpointState::Enabled)
                    .build(),
            )
            .tag_specifications(tags(ec2::ResourceType::Instance, &launch.tags))
            .tag_specifications(tags(ec2::ResourceType::Volume, &launch.tags));
        if !launch.image.is_empty() {
            call = call.image_id(&launch.image);
        }
        if !launch.security_groups.is_empty() {
            call = call.set_security_group_ids(Some(launch.security_groups.clone()));
        }
        if let Some(template) = &launch.template {
            let named = ec2::LaunchTemplateSpecification::builder().version(&template.version);
            let named = if template.name.starts_with("lt-") {
                named.launch_template_id(&template.name)
            } else {
                named.launch_template_name(&template.name)
            };
            call = call.launch_template(named.build());
        }
        if let Some(profile) = &launch.instance_profile {
            call = call.iam_instance_profile(ec2::IamInstanceProfileSpecification::builder().name(profile).build());
        }
        if let Some((device, size)) = &launch.root_volume {
            let ebs = ec2::EbsBlockDevice::builder()
                .volume_size(i32::try_from(*size).unwrap_or(i32::MAX))
                .volume_type(ec2::VolumeType::Gp3)
                .delete_on_termination(true)
                .build();
            call = call.block_device_mappings(ec2::BlockDeviceMapping::builder().device_name(device).ebs(ebs).build());
        }
        if launch.spot {
            let spot = ec2::SpotMarketOptions::builder()
                .spot_instance_type(ec2::SpotInstanceType::OneTime)
                .instance_interruption_behavior(ec2::InstanceInterruptionBehavior::Terminate)
                .build();
            call = call.instance_market_options(
                ec2::InstanceMarketOptionsRequest::builder()
                    .market_type(ec2::MarketType::Spot)
                    .spot_options(spot)
                    .build(),
            );
        }
        Ok(call)
    }

    async fn template_call(&self, spec: &TemplateSpec) -> CreateLaunchTemplateFluentBuilder {
        let mut data = ec2::RequestLaunchTemplateData::builder()
            .instance_initiated_shutdown_behavior(ec2::ShutdownBehavior::Terminate)
            .metadata_options(
                ec2::LaunchTemplateInstanceMetadataOptionsRequest::builder()
                    .http_tokens(ec2::LaunchTemplateHttpTokensState::Required)
                    .http_put_response_hop_limit(1)
                    .http_endpoint(ec2::LaunchTemplateInstanceMetadataEndpointState::Enabled)
                    .build(),
            )
            .tag_specifications(
                ec2::LaunchTemplateTagSpecificationRequest::builder()
                    .resource_type(ec2::ResourceType::Volume)
                    .set_tags(Some(spec.tags.iter().map(|(key, value)| tag(key, value)).collect()))
                    .build(),
            );
        if !spec.security_groups.is_empty() {
            data = data.set_security_group_ids(Some(spec.security_groups.clone()));
        }
        if let Some(profile) = &spec.instance_profile {
            data = data.iam_instance_profile(
                ec2::LaunchTemplateIamInstanceProfileSpecificationRequest::builder().name(profile).build(),
            );
        }
        if let Some((device, size)) = &spec.root_volume {
            let ebs = ec2::LaunchTemplateEbsBlockDeviceRequest::builder()
                .volume_size(i32::try_from(*size).unwrap_or(i32::MAX))
                .volume_type(ec2::VolumeType::Gp3)
                .delete_on_termination(true)
                .build();
            data = data.block_device_mappings(
                ec2::LaunchTemplateBlockDeviceMappingRequest::builder().device_name(device).ebs(ebs).build(),
            );
        }
        self.clients()
            .await
            .once
            .create_launch_template()
            .launch_template_name(&spec.name)
            .client_token(&spec.name)
            .launch_template_data(data.build())
            .tag_specifications(tags(ec2::ResourceType::LaunchTemplate, &spec.tags))
    }

    async fn fleet_call(&self, launch: &Launch) -> Result<CreateFleetFluentBuilder, CloudError> {
        let Some(template) = &launch.template else {
            return Err(CloudError::from_code("InvalidParameterValue", "a fleet needs a launch template"));
        };
        let named = ec2::FleetLaunchTemplateSpecificationRequest::builder()
            .version(&template.version)
            .launch_template_specification_user_data(base64::encode(&launch.user_data));
        let named = if template.name.starts_with("lt-") {
            named.launch_template_id(&template.name)
        } else {
            named.launch_template_name(&template.name)
        };
        let mut from = ec2::FleetLaunchTemplateConfigRequest::builder().launch_template_specification(named.build());
        for place in &launch.places {
            let mut one = ec2::FleetLaunchTemplateOverridesRequest::builder()
                .instance_type(place.instance_type.as_str().into())
                .subnet_id(&place.subnet);
            if !launch.image.is_empty() {
                one = one.image_id(&launch.image);
            }
            from = from.overrides(one.build());
        }
        let kind =
            if launch.spot { ec2::DefaultTargetCapacityType::Spot } else { ec2::DefaultTargetCapacityType::OnDemand };
        let mut call = self
            .clients()
            .await
            .once
            .create_fleet()
            .client_token(&launch.token)
            .r#type(ec2::FleetType::Instant)
            .launch_template_configs(from.build())
            .target_capacity_specification(
                ec2::TargetCapacitySpecificationRequest::builder()
                    .total_target_capacity(1)
                    .default_target_capacity_type(kind)
                    .build(),
            )
            .tag_specifications(tags(ec2::ResourceType::Fleet, &launch.tags))
            .tag_specifications(tags(ec2::ResourceType::Instance, &launch.tags));
        if launch.spot {
            call = call.spot_options(
                ec2::SpotOptionsRequest::builder()
                    .allocation_strategy(ec2::SpotAllocationStrategy::PriceCapacityOptimized)
                    .instance_interruption_behavior(ec2::SpotInstanceInterruptionBehavior::Terminate)
                    .build(),
            );
        } else {
            call = call.on_demand_options(
                ec2::OnDemandOptionsRequest::builder()
                    .allocation_strategy(ec2::FleetOnDemandAllocationStrategy::LowestPrice)
                    .build(),
            );
        }
        Ok(call)
    }
}

#[async_trait]
impl Cloud for Aws {
    async fn run_instance(&self, launch: &Launch) -> Result<Launched, CloudError> {
        let call = self.run_call(launch).await?;
        let answer = call.send().await.map_err(error)?;
        let first = answer.instances().first().and_then(instance);
        let launched = first.ok_or_else(|| CloudError::unknown("NoInstance", "RunInstances names no instance"))?;
        Ok(Launched {
            instance: launched.id,
            instance_type: Some(launched.instance_type).filter(|name| !name.is_empty()),
            zone: Some(launched.zone).filter(|zone| !zone.is_empty()),
        })
    }

    async fn create_template(&self, spec: &TemplateSpec) -> Result<(), CloudError> {
        match self.template_call(spec).await.send().await.map_err(error) {
            Ok(_) => Ok(()),
            Err(error) if error.code == "InvalidLaunchTemplateName.AlreadyExistsException" => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn create_fleet(&self, launch: &Launch) -> Result<FleetAnswer, CloudError> {
        let call = self.fleet_call(launch).await?;
        let answer = call.send().await.map_err(error)?;
        let mut all = FleetAnswer::default();
        for group in answer.instances() {
            let place = group
                .launch_template_and_overrides()
                .and_then(|both| both.overrides())
                .and_then(|overrides| place_of(overrides, launch));
            let instance_type = group.instance_type().map(|name| name.as_str().to_string());
            for id in group.instance_ids() {
                all.launched.push(Launched {
                    instance: id.clone(),
                    instance_type: instance_type.clone(),
                    zone: place.as_ref().map(|place| place.zone.clone()),
                });
            }
        }
        for failed in answer.errors() {
            let place = failed
                .launch_template_and_overrides()
                .and_then(|both| both.overrides())
                .and_then(|overrides| place_of(overrides, launch));
            let error = CloudError::from_code(
                failed.error_code().unwrap_or_default(),
                failed.error_message().unwrap_or("no message"),
            );
            let error = if place.is_some() { error.of_place() } else { error };
            all.errors.push((place, error));
        }
        Ok(all)
    }

    async fn delete_template(&self, name: &str) -> Result<(), CloudError> {
        let gone = self.clients().await.ec2.delete_launch_template().launch_template_name(name).send().await;
        match gone.map_err(error) {
            Ok(_) => Ok(()),
            Err(error) if error.class == Class::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn templates(&self, deployment: &str, page: Option<String>) -> Result<Page<(String, i64)>, CloudError> {
        let ours = filter(format!("tag:{}", crate::tags::DEPLOYMENT), vec![deployment.to_string()]);
        let call = self.clients().await.ec2.describe_launch_templates().filters(ours).set_next_token(page);
        let answer = call.send().await.map_err(error)?;
        let items = answer
            .launch_templates()
            .iter()
            .filter_map(|template| {
                let made = template.create_time().and_then(|time| time.to_millis().ok())?;
                Some((template.launch_template_name()?.to_string(), made))
            })
            .collect();
        Ok(Page { items, next: answer.next_token().filter(|next| !next.is_empty()).map(String::from) })
    }

    async fn instances(&self, which: &Which, page: Option<String>) -> Result<Page<Instance>, CloudError> {
        let filter = match which {
            Which::Tagged(key, value) => filter(format!("tag:{key}"), vec![value.clone()]),
            Which::Ids(ids) => filter("instance-id", ids.clone()),
        };
        let call = self.clients().await.ec2.describe_instances().filters(filter).max_results(1000).set_next_token(page);
        let answer = call.send().await.map_err(error)?;
        let items = answer.reservations().iter().flat_map(|group| group.instances()).filter_map(instance).collect();
        Ok(Page { items, next: answer.next_token().filter(|next| !next.is_empty()).map(String::from) })
    }

    async fn statuses(&self, ask: Ask, page: Option<String>) -> Result<Page<Status>, CloudError> {
        let one = |text: &str| vec![text.to_string()];
        let filter = match ask {
            Ask::Events => filter(
                "event.code",
                ["instance-reboot", "system-reboot", "system-maintenance", "instance-retirement", "instance-stop"]
                    .map(String::from)
                    .to_vec(),
            ),
            Ask::InstanceImpaired => filter("instance-status.status", one("impaired")),
            Ask::SystemImpaired => filter("system-status.status", one("impaired")),
        };
        let call =
            self.clients().await.ec2.describe_instance_status().filters(filter).max_results(1000).set_next_token(page);
        let answer = call.send().await.map_err(error)?;
        let items = answer.instance_statuses().iter().filter_map(status).collect();
        Ok(Page { items, next: answer.next_token().filter(|next| !next.is_empty()).map(String::from) })
    }

    async fn terminate(&self, instances: &[String]) -> Result<(), CloudError> {
        let call = self.clients().await.ec2.terminate_instances().set_instance_ids(Some(instances.to_vec()));
        call.send().await.map(drop).map_err(error)
    }

    async fn receive(&self, queue: &str) -> Result<Vec<Message>, CloudError> {
        self.messages(queue, RECEIVE_WAIT_S, 30).await
    }

    async fn peek(&self, queue: &str) -> Result<Vec<Message>, CloudError> {
        self.messages(queue, 2, 1).await
    }

    async fn try_out(&self, trial: &Trial, launch: &Launch) -> Result<(), CloudError> {
        let template = || launch.template.as_ref().map(|template| template.name.clone()).unwrap_or_default();
        match trial {
            Trial::Run => tried(self.run_call(launch).await?.dry_run(true).send().await.map_err(error)),
            Trial::Fleet => tried(self.fleet_call(launch).await?.dry_run(true).send().await.map_err(error)),
            Trial::Template => {
                let spec = TemplateSpec {
                    name: template(),
                    security_groups: launch.security_groups.clone(),
                    instance_profile: launch.instance_profile.clone(),
                    root_volume: launch.root_volume.clone(),
                    tags: launch.tags.clone(),
                };
                tried(self.template_call(&spec).await.dry_run(true).send().await.map_err(error))
            }
            Trial::DeleteTemplate => {
                let call = self.clients().await.ec2.delete_launch_template().launch_template_name(template());
                match tried(call.dry_run(true).send().await.map_err(error)) {
                    // EC2 reports a missing template only to a caller with the permission.
                    Err(error) if error.class == Class::NotFound => Ok(()),
                    other => other,
                }
            }
            Trial::Terminate(id) => {
                let call = self.clients().await.ec2.terminate_instances().instance_ids(id);
                tried(call.dry_run(true).send().await.map_err(error))
            }
        }
    }

    async fn complete_hook(&self, hook: &Hook) -> Result<(), CloudError> {
        let call = self.clients().await.scaling.complete_lifecycle_action();
        let call = call.auto_scaling_group_name(&hook.group).lifecycle_hook_name(&hook.name);
        let call = call.lifecycle_action_token(&hook.token).instance_id(&hook.instance);
        match call.lifecycle_action_result("CONTINUE").send().await.map_err(error) {
            // «No active Lifecycle Action found»: the hook has timed out or was completed by another caller.
            Err(error) if error.code == "ValidationError" => Ok(()),
            said => said.map(drop),
        }
    }

    async fn queue_policy(&self, queue: &str) -> Result<String, CloudError> {
        let asked = sqs::QueueAttributeName::Policy;
        let call = self.clients().await.sqs.get_queue_attributes().queue_url(queue).attribute_names(asked.clone());
        let answer = call.send().await.map_err(error)?;
        Ok(answer.attributes().and_then(|all| all.get(&asked)).cloned().unwrap_or_default())
    }

    async fn send(&self, queue: &str, body: &str) -> Result<(), CloudError> {
        let call = self.clients().await.sqs.send_message().queue_url(queue).message_body(body);
        call.send().await.map(drop).map_err(error)
    }

    async fn delete_messages(&self, queue: &str, receipts: &[String]) -> Result<(), CloudError> {
        let mut call = self.clients().await.sqs.delete_message_batch().queue_url(queue);
        for (at, receipt) in receipts.iter().enumerate() {
            let entry = sqs::DeleteMessageBatchRequestEntry::builder().id(at.to_string()).receipt_handle(receipt);
            let entry = entry.build().map_err(|error| CloudError::unknown("ConstructionFailure", error.to_string()))?;
            call = call.entries(entry);
        }
        call.send().await.map(drop).map_err(error)
    }
}
