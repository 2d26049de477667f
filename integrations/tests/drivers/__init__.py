"""One module for each CI product: how its job is started, cancelled and killed, and what it shows at the end."""

from drivers.buildkite import Buildkite
from drivers.cli import Cli
from drivers.github import GitHub
from drivers.gitlab_shell import GitLabShell
from drivers.jenkins import Jenkins

DRIVERS = {"cli": Cli(), "github": GitHub(), "buildkite": Buildkite(), "gitlab-shell": GitLabShell(), "jenkins": Jenkins()}
"""By the name that selects them on the command line of pytest."""
