"""Checks what lies in deploy/ for containers, and prints what is wrong, a line each.

The manifests against Kubernetes' own schemas (oldest and newest version that we mean), and all of it against the rest of the
repository: ports, users, times, names that have to be the same in several places.
"""

import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

OLDEST = "1.27"  # gRPC probes are stable from here on

root = Path(sys.argv[1])
wrong = []


def check(holds, text):
    if not holds:
        wrong.append(text)


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


kubernetes = root / "deploy/kubernetes"
kustomization = documents(kubernetes / "kustomization.yaml")[0]
found = {}
for name in kustomization["resources"]:
    for document in documents(kubernetes / name):
        found[document["kind"], document["metadata"]["name"]] = document
        for version in (OLDEST, kubernetes_validate.latest_version()):
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{name}, {document['kind']}, Kubernetes {version}: {error.message}")
listed = {path.name for path in kubernetes.glob("*.yaml")} - {"kustomization.yaml"}
check(listed == set(kustomization["resources"]), f"kustomization.yaml names other files than there are: {listed}")

servers = found["StatefulSet", "wharfinger"]["spec"]
pod = servers["template"]
labels = pod["metadata"]["labels"]
container = pod["spec"]["containers"][0]
for (kind, name), document in found.items():
    spec = document["spec"]
    selector = spec.get("selector") or spec.get("podSelector")
    selector = selector.get("matchLabels", selector)
    check(selector.items() <= labels.items(), f"{kind} {name} selects {selector}, and a server has {labels}")
headless = found["Service", servers["serviceName"]]["spec"]
check(headless["clusterIP"] == "None", "the servers' names need a service without an address of its own")
port = container["ports"][0]["containerPort"]
check(container["readinessProbe"]["grpc"]["port"] == port, "the probe asks another port")

containerfile = (root / "deploy/Containerfile").read_text()
user = pod["spec"]["securityContext"]["runAsUser"]
check(f"USER {user}:" in containerfile, f"the image has another user than {user}")
check(f"EXPOSE {port}\n" in containerfile, f"the image exposes another port than {port}")

compose = documents(root / "deploy/compose/compose.yaml")[0]
services = compose["services"]
brokers = {name: service for name, service in services.items() if name != "database"}
check(len(brokers) == 3, f"three servers, not {list(brokers)}")
for name, service in brokers.items():
    check(service["hostname"] == name, f"{name} is not found under the name that it advertises")
    check(all(said.startswith("127.0.0.1:") for said in service["ports"]), f"{name} is reachable from outside")
    check(f":{user}:{user}" in f":{service['user']}".replace("${WHARFINGER_USER:-", "").replace("}", ""), f"{name}'s user")

for path in (kubernetes / "wharfinger.toml", root / "deploy/compose/wharfinger.toml.example"):
    config = tomllib.loads(path.read_text())
    check(config["server"]["listen"].endswith(f":{port}"), f"{path} listens elsewhere than on {port}")
    check(config["cluster"]["advertise"].endswith(f":{port}"), f"{path} advertises another port than {port}")
advertised = tomllib.loads((kubernetes / "wharfinger.toml").read_text())["cluster"]["advertise"]
check(f"}}.{servers['serviceName']}:" in advertised, f"{advertised} is not a name of a server")

print("\n".join(wrong), end="")
