//! What EC2's errors mean, by their code; the text never decides.
//!
//! Codes from the EC2 API reference («Error codes») and from Karpenter's `pkg/errors/errors.go`.

use std::fmt;
use wharfinger_adapter::Failure;

/// What a failed call means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// None to be had of this type in this zone now. Another place, or later.
    Capacity,
    /// EC2 does not offer this type in this zone. Another place; the operator corrects the setting if none is left.
    NotOffered,
    /// A limit of the account is reached: nothing of the kind is launched meanwhile.
    Quota,
    /// The operator must mend it: permissions, image, subnet.
    Configuration,
    /// Keys missing, wrong or run out.
    Credentials,
    /// Asked too often: not done.
    Throttle,
    /// What was named is not known (yet).
    NotFound,
    /// The client token stands for another request.
    ParameterMismatch,
    /// The client token's instance was launched and is terminated.
    TokenSpent,
    /// No answer, or one that does not tell: it may have been done.
    Unknown,
}

/// A call of [`crate::cloud::Cloud`] that did not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudError {
    /// What it means.
    pub class: Class,
    /// EC2's code, or one of ours (`Timeout`).
    pub code: String,
    /// In EC2's words.
    pub message: String,
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl CloudError {
    /// From the code that EC2 or SQS gave.
    pub fn from_code(code: &str, message: impl Into<String>) -> Self {
        Self { class: classify(code), code: code.to_string(), message: message.into() }
    }

    /// No answer that tells what was done.
    pub fn unknown(code: &str, message: impl Into<String>) -> Self {
        Self { class: Class::Unknown, code: code.to_string(), message: message.into() }
    }

    /// The error, if a fleet reports it for one place. Of a whole fleet `InvalidFleetConfiguration` means wrong settings; of one
    /// place it means that the zone does not offer the type.
    pub fn of_place(mut self) -> Self {
        if self.code == "InvalidFleetConfiguration" {
            self.class = Class::NotOffered;
        }
        self
    }

    /// What the broker is told.
    pub fn failure(&self, doing: &str) -> Failure {
        let text = format!("{doing}: {self}");
        match self.class {
            Class::Capacity => Failure::provider("NO_CAPACITY", text),
            Class::Quota => Failure::provider(
                "QUOTA_REACHED",
                format!("{text}; have the account's limit raised in Service Quotas, or lower the pool's max"),
            ),
            Class::Configuration if self.code == "UnauthorizedOperation" || self.code == "AccessDenied" => {
                Failure::configuration(
                    "NOT_AUTHORIZED",
                    format!("{text}; `wharfinger doctor ec2` tells what is missing"),
                )
            }
            Class::Configuration if self.code.starts_with("InvalidAMIID") => {
                Failure::configuration("IMAGE_INVALID", format!("{text}; mend `image` of the pool"))
            }
            Class::NotOffered => {
                Failure::configuration("REFUSED_BY_EC2", format!("{text}; correct `types` and `subnets` of the pool"))
            }
            Class::Configuration => {
                Failure::configuration("REFUSED_BY_EC2", format!("{text}; mend the pool's settings"))
            }
            Class::Credentials => Failure::configuration(
                "CREDENTIALS",
                format!("{text}; give the broker credentials that are valid (environment, profile or instance role)"),
            ),
            Class::Throttle => Failure::provider("THROTTLED", text),
            Class::NotFound | Class::ParameterMismatch | Class::TokenSpent | Class::Unknown => {
                Failure::provider("EC2_FAILED", text)
            }
        }
    }
}

/// What this code means.
pub fn classify(code: &str) -> Class {
    match code {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "InsufficientCapacityOnHost"
        | "UnfulfillableCapacity"
        | "InsufficientFreeAddressesInSubnet"
        | "InsufficientCapacity"
        | "InsufficientVolumeCapacity"
        | "SpotMaxPriceTooLow" => Class::Capacity,
        "Unsupported" => Class::NotOffered,
        "MaxSpotInstanceCountExceeded"
        | "VcpuLimitExceeded"
        | "InstanceLimitExceeded"
        | "MaxFleetCountExceeded"
        | "MaxSpotFleetRequestCountExceeded"
        | "VolumeLimitExceeded"
        | "FleetQuotaExceeded" => Class::Quota,
        "RequestLimitExceeded"
        | "EC2ThrottledException"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "SlowDown" => Class::Throttle,
        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "Blocked"
        | "InvalidAccessKeyId" => Class::Credentials,
        "IdempotentParameterMismatch" => Class::ParameterMismatch,
        "IdempotentInstanceTerminated" => Class::TokenSpent,
        "InternalError"
        | "InternalFailure"
        | "Unavailable"
        | "ServiceUnavailable"
        | "Server.InternalError"
        | "RequestTimeout"
        | "" => Class::Unknown,
        code if code.ends_with(".NotFound") || code.ends_with(".NotFoundException") => match code {
            "InvalidInstanceID.NotFound" => Class::NotFound,
            code if code.starts_with("InvalidLaunchTemplateName") || code.starts_with("InvalidLaunchTemplateId") => {
                Class::NotFound
            }
            _ => Class::Configuration,
        },
        "AWS.SimpleQueueService.NonExistentQueue" | "QueueDoesNotExist" => Class::Configuration,
        code if code.starts_with("Invalid")
            || code.starts_with("Missing")
            || code.starts_with("Unauthorized")
            || code.starts_with("AccessDenied")
            || code.starts_with("AuthFailure.")
            || code.starts_with("UnknownParameter")
            || code.starts_with("Unsupported")
            || code.starts_with("MalformedQueryString")
            || code.starts_with("NoDefaultVpc")
            || code.starts_with("VPCIdNotSpecified") =>
        {
            Class::Configuration
        }
        _ => Class::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_class() {
        for (code, class) in [
            ("InsufficientInstanceCapacity", Class::Capacity),
            ("Unsupported", Class::NotOffered),
            ("InvalidFleetConfiguration", Class::Configuration),
            ("UnsupportedOperation", Class::Configuration),
            ("VcpuLimitExceeded", Class::Quota),
            ("RequestLimitExceeded", Class::Throttle),
            ("InvalidAMIID.NotFound", Class::Configuration),
            ("InvalidAMIID.Malformed", Class::Configuration),
            ("InvalidInstanceID.NotFound", Class::NotFound),
            ("InvalidLaunchTemplateName.NotFoundException", Class::NotFound),
            ("InvalidSubnetID.NotFound", Class::Configuration),
            ("AuthFailure", Class::Credentials),
            ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", Class::Configuration),
            ("UnauthorizedOperation", Class::Configuration),
            ("IdempotentParameterMismatch", Class::ParameterMismatch),
            ("InternalError", Class::Unknown),
            ("SomethingNew", Class::Unknown),
        ] {
            assert_eq!(classify(code), class, "{code}");
        }
    }

    #[test]
    fn who_must_act_is_told_with_the_remedy() {
        let failure = CloudError::from_code("InvalidAMIID.NotFound", "no such image").failure("launching");
        assert_eq!((failure.reason, failure.blame), ("IMAGE_INVALID", wharfinger_adapter::Blame::Configuration));
        let failure = CloudError::from_code("UnauthorizedOperation", "no").failure("launching");
        assert!(failure.reason == "NOT_AUTHORIZED" && failure.message.contains("doctor"), "{failure}");
        let error = CloudError::from_code("InvalidFleetConfiguration", "no such type in the zone").of_place();
        assert_eq!((error.class, error.failure("launching").reason), (Class::NotOffered, "REFUSED_BY_EC2"));
        let failure = CloudError::unknown("Timeout", "no answer").failure("listing");
        assert_eq!(failure.blame, wharfinger_adapter::Blame::Provider);
    }
}
