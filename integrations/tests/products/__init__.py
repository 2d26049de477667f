"""One module for each CI product: how its job is started, cancelled and killed, and what it shows at the end."""

from products.ansible import Ansible
from products.buildbot import Buildbot
from products.buildkite import Buildkite
from products.cli import Cli
from products.github import GitHub
from products.gitlab import GitLab
from products.gitlab_shell import GitLabShell
from products.jenkins import Jenkins
from products.jenkins_lock import JenkinsLock
from products.pytests import Pytest

PRODUCTS = {
    "cli": Cli(), "github": GitHub(), "buildkite": Buildkite(), "gitlab-shell": GitLabShell(), "gitlab": GitLab(), "jenkins": Jenkins(),
    "lock": JenkinsLock(), "pytest": Pytest(), "ansible": Ansible(), "buildbot": Buildbot(),
}  # fmt: skip
"""By the name that selects them on the command line of pytest."""
