//! Classes of EC2's errors, by their code. The text never decides.
//!
//! Codes from the EC2 API reference («Error codes») and from Karpenter's `pkg/errors/errors.go`.

use std::fmt;
use wharfinger_adapter::Failure;

/// Meaning of a failed call for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The zone has no capacity for this type now. Another place or a later request may work.
    Capacity,
    /// The zone does not offer this type. Another place may work; if none does, the operator corrects the settings.
    NotOffered,
    /// A limit of the account is reached. The market rests.
    Quota,
    /// The operator must correct permissions, image, subnet or other settings.
    Configuration,
    /// Credentials are missing, wrong or expired.
    Credentials,
    /// AWS throttled the call and did nothing.
    Throttle,
    /// EC2 does not know an id or name, or not yet.
    NotFound,
    /// The client token belongs to another request.
    ParameterMismatch,
    /// The instance of the client token was launched and is terminated.
    TokenSpent,
    /// No answer, or one without a clear outcome. The call may have had its effect.
    Unknown,
}

/// A failed call of [`crate::cloud::Cloud`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudError {
    /// Its class.
    pub class: Class,
    /// EC2's code, or one of the adapter (`Timeout`).
    pub code: String,
    /// EC2's text.
    pub message: String,
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl CloudError {
    /// An error with a code of AWS.
    pub fn from_code(code: &str, message: impl Into<String>) -> Self {
        Self { class: classify(code), code: code.to_string(), message: message.into() }
    }

    /// An error without a known outcome.
    pub fn unknown(code: &str, message: impl Into<String>) -> Self {
        Self { class: Class::Unknown, code: code.to_string(), message: message.into() }
    }

    /// Returns the error as one that a fleet reports for one place. `InvalidFleetConfiguration` means wrong settings for a whole fleet;
    /// for one place it means that the zone does not offer the type.
    pub fn of_place(mut self) -> Self {
        if self.code == "InvalidFleetConfiguration" {
            self.class = Class::NotOffered;
        }
        self
    }

    /// Returns the failure for the broker.
    pub fn failure(&self, doing: &str) -> Failure {
        let text = format!("{doing}: {self}");
        match self.class {
            Class::Capacity => Failure::provider("NO_CAPACITY", text),
            Class::Quota => Failure::provider(
                "QUOTA_REACHED",
                format!("{text}; raise the account's limit in Service Quotas, or lower the pool's max"),
            ),
            Class::Configuration if self.code == "UnauthorizedOperation" || self.code == "AccessDenied" => {
                Failure::configuration(
                    "NOT_AUTHORIZED",
                    format!("{text}; run `wharfinger doctor ec2`, which lists the missing permissions"),
                )
            }
            Class::Configuration if self.code.starts_with("InvalidAMIID") => {
                Failure::configuration("IMAGE_INVALID", format!("{text}; correct `image` of the pool"))
            }
            Class::NotOffered => {
                Failure::configuration("REFUSED_BY_EC2", format!("{text}; correct `types` and `subnets` of the pool"))
            }
            Class::Configuration => {
                Failure::configuration("REFUSED_BY_EC2", format!("{text}; correct the pool's settings"))
            }
            Class::Credentials => Failure::configuration(
                "CREDENTIALS",
                format!("{text}; provide valid credentials (environment, profile or instance role)"),
            ),
            Class::Throttle => Failure::provider("THROTTLED", text),
            Class::NotFound | Class::ParameterMismatch | Class::TokenSpent | Class::Unknown => {
                Failure::provider("EC2_FAILED", text)
            }
        }
    }
}

/// Returns the class of a code.
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
    fn a_failure_names_who_must_act_and_the_remedy() {
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
