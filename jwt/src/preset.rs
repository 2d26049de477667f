//! The usual rules of CI products, and the claims that a grant must name where everyone has tokens of one issuer.

use crate::Algorithm;
use std::time::Duration;

/// A CI product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// GitHub Actions. All of GitHub has tokens of one issuer.
    Github,
    /// GitLab CI. All of gitlab.com has tokens of one issuer; a server of one's own has another.
    Gitlab,
    /// Buildkite. All organisations have tokens of one issuer.
    Buildkite,
    /// Service accounts of a Kubernetes cluster, which has an issuer of its own.
    Kubernetes,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Preset {
    /// All presets.
    pub const ALL: [Preset; 4] = [Preset::Github, Preset::Gitlab, Preset::Buildkite, Preset::Kubernetes];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Preset::Github => "github",
            Preset::Gitlab => "gitlab",
            Preset::Buildkite => "buildkite",
            Preset::Kubernetes => "kubernetes",
        }
    }

    /// The `iss` that the product has for everyone.
    pub fn issuer(self) -> Option<&'static str> {
        match self {
            Preset::Github => Some("https://token.actions.githubusercontent.com"),
            Preset::Gitlab => Some("https://gitlab.com"),
            Preset::Buildkite => Some("https://agent.buildkite.com"),
            Preset::Kubernetes => None,
        }
    }

    /// The product whose issuer this is, shared by strangers.
    pub fn of_shared(issuer: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.issuer() == Some(issuer.trim_end_matches('/')))
    }

    /// The algorithms that it signs with.
    pub fn algorithms(self) -> Vec<Algorithm> {
        match self {
            Preset::Github | Preset::Gitlab | Preset::Buildkite => vec![Algorithm::Rs256],
            Preset::Kubernetes => vec![Algorithm::Rs256, Algorithm::Es256],
        }
    }

    /// Maximum time from `iat` to `exp`.
    pub fn max_lifetime(self) -> Duration {
        match self {
            Preset::Github | Preset::Buildkite | Preset::Kubernetes => HOUR,
            // As long as a job may run.
            Preset::Gitlab => 24 * HOUR,
        }
    }

    /// The template of principals: the same in each token of one run or job.
    pub fn principal(self) -> &'static str {
        match self {
            Preset::Github => "repository/{repository_id}/run/{run_id}/{run_attempt}",
            Preset::Gitlab => "project/{project_id}/pipeline/{pipeline_id}/job/{job_id}",
            Preset::Buildkite => {
                "organization/{organization_slug}/pipeline/{pipeline_slug}/build/{build_number}/job/{job_id}"
            }
            Preset::Kubernetes => {
                "ns/{kubernetes.io.namespace}/sa/{kubernetes.io.serviceaccount.name}/{kubernetes.io.serviceaccount.uid}"
            }
        }
    }

    /// The claims of which each grant, or `require`, names one. Names of owners can be registered again by others; their ids
    /// cannot.
    pub fn must(self) -> &'static [&'static str] {
        match self {
            Preset::Github => {
                &["repository_id", "repository_owner_id", "enterprise_id", "source_repository_id", "source_owner_id"]
            }
            Preset::Gitlab => &["project_id", "namespace_id", "source_repository_id", "source_owner_id"],
            Preset::Buildkite => &["organization_id", "pipeline_id", "source_owner_id"],
            Preset::Kubernetes => &["kubernetes.io.namespace", "kubernetes.io.serviceaccount.uid", "sub"],
        }
    }

    /// The claim of this product for a name that is the same for all products.
    pub(crate) fn claim_of(self, name: &str) -> Option<&'static str> {
        let (repository, owner, reference, trigger, runner) = match self {
            Preset::Github => ("repository_id", "repository_owner_id", "ref", "event_name", "runner_environment"),
            Preset::Gitlab => ("project_id", "namespace_id", "ref_path", "pipeline_source", "runner_environment"),
            Preset::Buildkite => {
                ("pipeline_id", "organization_id", "build_branch", "build_source", "runner_environment")
            }
            Preset::Kubernetes => return None,
        };
        match name {
            "source_repository_id" => Some(repository),
            "source_owner_id" => Some(owner),
            "source_ref" => Some(reference),
            "build_trigger" => Some(trigger),
            "runner_environment" => Some(runner),
            _ => None,
        }
    }
}
