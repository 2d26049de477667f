//! The CI product that runs this program, by its environment: names for the lease, so that a build is found and failures of the same
//! work are compared.

mod claim;
mod log;

use super::error::Failure;
use super::exit::Exit;
use super::text;
use crate::pb;
pub(crate) use claim::Claim;
use clap::ValueEnum;
pub(crate) use log::{Level, Log, without_commands};

/// Maximum length of a request id, with room for the numbers of further attempts; of a tag; of a name; in bytes.
const REQUEST_ID_MAX: usize = 112;
const TAG_MAX: usize = 256;
const WORK_MAX: usize = 256;
const HOLDER_MAX: usize = 1024;

/// A CI product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Product {
    /// GitHub Actions
    Github,
    /// Forgejo Actions
    Forgejo,
    /// Gitea Actions
    Gitea,
    /// GitLab CI
    Gitlab,
    /// Jenkins
    Jenkins,
    /// Buildkite
    Buildkite,
    /// Buildbot, whose steps pass BUILDBOT_* on (docs/ci.md)
    Buildbot,
    /// Zuul, whose jobs pass ZUUL_* on (docs/ci.md)
    Zuul,
    /// Woodpecker
    Woodpecker,
}

/// Values of `--ci`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The product of the environment, if there is one.
    Auto,
    /// This one.
    Is(Product),
}

impl Wish {
    /// `auto`, or the name of a product.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        Product::from_str(text, false).map(Self::Is).map_err(|_| {
            let names: Vec<_> = PRODUCTS.iter().map(|product| product.name()).collect();
            format!("write auto, or one of {}", names.join(", "))
        })
    }
}

/// In the order in which they are looked for: Forgejo and Gitea have the variables of GitHub too.
const PRODUCTS: [Product; 9] = [
    Product::Forgejo,
    Product::Gitea,
    Product::Github,
    Product::Gitlab,
    Product::Buildkite,
    Product::Woodpecker,
    Product::Zuul,
    Product::Buildbot,
    Product::Jenkins,
];

/// Facts of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) product: Product,
    pub(crate) work: String,
    pub(crate) holder: String,
    pub(crate) request_id: String,
    pub(crate) tags: Vec<(&'static str, String)>,
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of this process.
pub(crate) fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

impl Product {
    /// Its name, as `--ci` takes it and the result file has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Product::Github => "github",
            Product::Forgejo => "forgejo",
            Product::Gitea => "gitea",
            Product::Gitlab => "gitlab",
            Product::Jenkins => "jenkins",
            Product::Buildkite => "buildkite",
            Product::Buildbot => "buildbot",
            Product::Zuul => "zuul",
            Product::Woodpecker => "woodpecker",
        }
    }

    /// The variable that tells the product, and its value if only one counts.
    fn mark(self) -> (&'static str, Option<&'static str>) {
        match self {
            Product::Github => ("GITHUB_ACTIONS", Some("true")),
            Product::Forgejo => ("FORGEJO_ACTIONS", Some("true")),
            Product::Gitea => ("GITEA_ACTIONS", Some("true")),
            Product::Gitlab => ("GITLAB_CI", Some("true")),
            Product::Jenkins => ("JENKINS_URL", None),
            Product::Buildkite => ("BUILDKITE", Some("true")),
            Product::Buildbot => ("BUILDBOT_BUILDERNAME", None),
            Product::Zuul => ("ZUUL_UUID", None),
            Product::Woodpecker => ("CI_SYSTEM_NAME", Some("woodpecker")),
        }
    }

    fn is_here(self, env: Env) -> bool {
        let (name, wanted) = self.mark();
        env(name).is_some_and(|value| wanted.is_none_or(|wanted| value == wanted))
    }
}

/// The job of this environment. `None`: `auto`, and there is no product. `key`: tells jobs apart that have the same names.
///
/// # Errors
/// The product that is named is not here (`BadData`).
pub(crate) fn job(wish: Wish, key: Option<&str>, env: Env) -> Result<Option<Job>, Failure> {
    let product = match wish {
        Wish::Auto => match PRODUCTS.into_iter().find(|product| product.is_here(env)) {
            Some(product) => product,
            None => return Ok(None),
        },
        Wish::Is(product) if product.is_here(env) => product,
        Wish::Is(product) => {
            let (name, wanted) = product.mark();
            let value = wanted.map(|value| format!("={value}")).unwrap_or_default();
            return Err(Failure::new(
                Exit::BadData,
                format!("--ci {}: {name}{value} is not in the environment", product.name()),
            )
            .remedy("use --ci auto, or pass the variables of the CI product on to this program"));
        }
    };
    Ok(Some(of(product, key.unwrap_or_default(), env)))
}

fn of(product: Product, key: &str, env: Env) -> Job {
    let get = |name: &str| env(name).unwrap_or_default();
    let or = |name: &str, other: &str| env(name).unwrap_or_else(|| get(other));
    let (work, holder, id, tags) = match product {
        Product::Github | Product::Forgejo | Product::Gitea => (
            work(&[&get("GITHUB_REPOSITORY"), &get("GITHUB_WORKFLOW"), &get("GITHUB_JOB"), key], &get("GITHUB_SHA")),
            joined(&[&get("GITHUB_SERVER_URL"), &get("GITHUB_REPOSITORY"), "actions/runs", &get("GITHUB_RUN_ID")], "/"),
            joined(
                &[
                    "gh",
                    &get("GITHUB_RUN_ID"),
                    &get("GITHUB_RUN_ATTEMPT"),
                    &get("GITHUB_JOB"),
                    key,
                    &get("GITHUB_ACTION"),
                ],
                "-",
            ),
            vec![
                ("ci_pipeline", get("GITHUB_WORKFLOW")),
                ("ci_job", get("GITHUB_JOB")),
                ("ci_branch", or("GITHUB_HEAD_REF", "GITHUB_REF_NAME")),
                ("ci_commit", get("GITHUB_SHA")),
                ("ci_run", get("GITHUB_RUN_ID")),
                ("ci_attempt", get("GITHUB_RUN_ATTEMPT")),
                ("ci_event", get("GITHUB_EVENT_NAME")),
            ],
        ),
        Product::Gitlab => (
            work(&[&get("CI_PROJECT_PATH"), &get("CI_JOB_NAME"), key], &get("CI_COMMIT_SHA")),
            get("CI_JOB_URL"),
            joined(&["gl", &get("CI_JOB_ID"), key], "-"),
            vec![
                ("ci_pipeline", get("CI_PIPELINE_ID")),
                ("ci_job", get("CI_JOB_NAME")),
                ("ci_branch", or("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "CI_COMMIT_REF_NAME")),
                ("ci_commit", get("CI_COMMIT_SHA")),
                ("ci_run", get("CI_JOB_ID")),
                ("ci_event", get("CI_PIPELINE_SOURCE")),
            ],
        ),
        Product::Jenkins => (
            work(&[&get("JOB_NAME"), &get("STAGE_NAME"), key], &get("GIT_COMMIT")),
            get("BUILD_URL"),
            joined(&["je", &get("BUILD_TAG"), &get("STAGE_NAME"), key], "-"),
            vec![
                ("ci_pipeline", get("JOB_NAME")),
                ("ci_job", get("STAGE_NAME")),
                ("ci_branch", or("BRANCH_NAME", "GIT_BRANCH")),
                ("ci_commit", get("GIT_COMMIT")),
                ("ci_run", get("BUILD_NUMBER")),
            ],
        ),
        Product::Buildkite => (
            work(
                &[&get("BUILDKITE_PIPELINE_SLUG"), &or("BUILDKITE_STEP_KEY", "BUILDKITE_LABEL"), key],
                &get("BUILDKITE_COMMIT"),
            ),
            joined(&[&get("BUILDKITE_BUILD_URL"), &get("BUILDKITE_JOB_ID")], "#"),
            joined(&["bk", &get("BUILDKITE_JOB_ID"), key], "-"),
            vec![
                ("ci_pipeline", get("BUILDKITE_PIPELINE_SLUG")),
                ("ci_job", or("BUILDKITE_STEP_KEY", "BUILDKITE_LABEL")),
                ("ci_branch", get("BUILDKITE_BRANCH")),
                ("ci_commit", get("BUILDKITE_COMMIT")),
                ("ci_run", get("BUILDKITE_BUILD_NUMBER")),
                ("ci_attempt", get("BUILDKITE_RETRY_COUNT")),
                ("ci_event", get("BUILDKITE_SOURCE")),
            ],
        ),
        Product::Buildbot => (
            work(&[&get("BUILDBOT_BUILDERNAME"), key], &get("BUILDBOT_REVISION")),
            get("BUILDBOT_BUILD_URL"),
            joined(&["bb", &get("BUILDBOT_MASTERNAME"), &get("BUILDBOT_BUILDID"), key], "-"),
            vec![
                ("ci_pipeline", get("BUILDBOT_BUILDERNAME")),
                ("ci_branch", get("BUILDBOT_BRANCH")),
                ("ci_commit", get("BUILDBOT_REVISION")),
                ("ci_run", get("BUILDBOT_BUILDNUMBER")),
            ],
        ),
        Product::Zuul => (
            work(&[&get("ZUUL_PROJECT"), &get("ZUUL_JOB"), key], &or("ZUUL_COMMIT", "ZUUL_REF")),
            or("ZUUL_BUILD_URL", "ZUUL_UUID"),
            joined(&["zu", &get("ZUUL_UUID"), key], "-"),
            vec![
                ("ci_pipeline", get("ZUUL_PIPELINE")),
                ("ci_job", get("ZUUL_JOB")),
                ("ci_branch", get("ZUUL_BRANCH")),
                ("ci_commit", get("ZUUL_COMMIT")),
                ("ci_run", get("ZUUL_UUID")),
                ("ci_change", joined(&[&get("ZUUL_CHANGE"), &get("ZUUL_PATCHSET")], ",")),
            ],
        ),
        Product::Woodpecker => (
            work(&[&get("CI_REPO"), &get("CI_WORKFLOW_NAME"), &get("CI_STEP_NAME"), key], &get("CI_COMMIT_SHA")),
            get("CI_PIPELINE_URL"),
            joined(
                &[
                    "wp",
                    &get("CI_REPO_ID"),
                    &get("CI_PIPELINE_NUMBER"),
                    &get("CI_WORKFLOW_NUMBER"),
                    &get("CI_STEP_NAME"),
                    &get("CI_STEP_STARTED"),
                    key,
                ],
                "-",
            ),
            vec![
                ("ci_pipeline", get("CI_WORKFLOW_NAME")),
                ("ci_job", get("CI_STEP_NAME")),
                ("ci_branch", or("CI_COMMIT_SOURCE_BRANCH", "CI_COMMIT_BRANCH")),
                ("ci_commit", get("CI_COMMIT_SHA")),
                ("ci_run", get("CI_PIPELINE_NUMBER")),
                ("ci_event", get("CI_PIPELINE_EVENT")),
            ],
        ),
    };
    let tags = std::iter::once(("ci", product.name().to_string())).chain(tags);
    let tags = tags.map(|(name, value)| (name, cut(&value, TAG_MAX))).filter(|(_, value)| !value.is_empty()).collect();
    Job { product, work: cut(&work, WORK_MAX), holder: cut(&holder, HOLDER_MAX), request_id: identifier(&id), tags }
}

/// The parts that are there, with this between them.
fn joined(parts: &[&str], between: &str) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(between)
}

/// `repository/job@commit`. Without a commit it is no name: the same job of another day would be the same work.
fn work(parts: &[&str], commit: &str) -> String {
    let job = joined(parts, "/");
    if commit.is_empty() || job.is_empty() { String::new() } else { format!("{job}@{commit}") }
}

/// One line of at most this length. What is too long keeps its end apart by a number.
fn cut(text: &str, most: usize) -> String {
    let line = text::one_line(text);
    if line.len() <= most {
        return line;
    }
    let number = format!("~{:016x}", number(&line));
    let mut end = most - number.len();
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{number}", &line[..end])
}

/// A request id: visible ASCII. A text that had to be changed keeps its difference by a number.
fn identifier(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '-' }).collect();
    if plain == text {
        cut(&plain, REQUEST_ID_MAX)
    } else {
        cut(&format!("{plain}~{:016x}", number(text)), REQUEST_ID_MAX)
    }
}

/// FNV-1a, which is the same in all versions of this program.
fn number(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Job {
    /// The id for one command of the job: a job may have several. `parts`: the command, and what it asks for.
    pub(crate) fn request_id_for(&self, parts: &[String]) -> String {
        let all: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
        format!("{}-{:08x}", cut(&self.request_id, REQUEST_ID_MAX - 12), number(&all) & 0xffff_ffff)
    }

    /// Fills in what the command line has left open.
    pub(crate) fn fill(&self, request: &mut pb::LeaseRequest) {
        if request.work.is_empty() {
            request.work.clone_from(&self.work);
        }
        for (name, value) in &self.tags {
            request.tags.entry((*name).to_string()).or_insert_with(|| value.clone());
        }
    }
}

#[cfg(test)]
mod tests;
