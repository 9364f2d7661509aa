"""What deploy/ has: it cannot be run here, but what it says has to fit together."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynserve.cli.main import cli

DEPLOY = Path(__file__).parents[1] / "deploy"


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """The objects by kind."""
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def pod(manifests: dict[str, Any]) -> Any:
    """The pods that the Deployment makes."""
    return manifests["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    """The only container of a pod."""
    (found,) = pod["containers"]
    return found


@pytest.fixture(scope="module")
def instructions() -> dict[str, str]:
    """The last of each instruction of the Dockerfile."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", "")
    return dict(re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE))


def options_of(words: list[str]) -> dict[str, str]:
    """Options that have a value; the command line itself has read them."""
    command = cli.get_command(cli.make_context("dynserve", ["run"]), "run")
    assert command is not None
    command.make_context("run", list(words))
    return {word: value for word, value in itertools.pairwise(words) if word.startswith("--")}


def test_there_is_what_a_server_needs(manifests: dict[str, Any]) -> None:
    """The objects, each for the same pods."""
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert sorted(manifests) == ["Deployment", "PodDisruptionBudget", "Service"]
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels


def test_nothing_is_killed_in_the_middle(pod: Any, container: Any) -> None:
    """There is time to drain and to finish, and some to spare, before SIGKILL."""
    options = options_of(container["args"])
    needed = float(options["--drain-wait"]) + float(options["--grace"])
    assert pod["terminationGracePeriodSeconds"] >= needed + 5
    assert "lifecycle" not in container


def test_a_server_drains_for_longer_than_readiness_takes(container: Any) -> None:
    """The pod is off the endpoints before the server refuses."""
    probe = container["readinessProbe"]
    noticed = (probe["periodSeconds"] + probe["timeoutSeconds"]) * probe["failureThreshold"]
    assert float(options_of(container["args"])["--drain-wait"]) > noticed


@pytest.mark.parametrize(
    ("probe", "service"),
    [
        ("startupProbe", None),
        ("readinessProbe", None),
        ("livenessProbe", "grpc.health.v1.Health"),
    ],
)
def test_probes(probe: str, service: str | None, container: Any) -> None:
    """They ask where the server listens; liveness does not ask whether it wants calls."""
    host, _, port = options_of(container["args"])["--listen"].rpartition(":")
    assert host == "0.0.0.0"
    asked = container[probe]["grpc"]
    assert (str(asked["port"]), asked.get("service")) == (port, service)
    assert [place["containerPort"] for place in container["ports"]] == [int(port)]


def test_the_name_stands_for_every_pod(manifests: dict[str, Any], container: Any) -> None:
    """A headless Service, on the port that is named in the container."""
    service = manifests["Service"]["spec"]
    (port,) = service["ports"]
    assert service["clusterIP"] == "None"
    assert port["targetPort"] == container["ports"][0]["name"]
    assert port["port"] == container["ports"][0]["containerPort"]


def test_a_rollout_takes_nothing_away(manifests: dict[str, Any]) -> None:
    """There is always one server more than less, and never two gone at once."""
    deployment = manifests["Deployment"]["spec"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
    }
    assert manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_a_container_has_no_rights(pod: Any, container: Any, instructions: dict[str, str]) -> None:
    """It is not root, gains nothing and writes to /tmp only; the image says the same user."""
    user = instructions["USER"].partition(":")[0]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(user),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert int(user) > 0
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [place["mountPath"] for place in container["volumeMounts"]] == ["/tmp"]
    assert "memory" in container["resources"]["limits"]
    assert sorted(container["resources"]["requests"]) == ["cpu", "memory"]


def test_the_image_gets_signals(container: Any, instructions: dict[str, str]) -> None:
    """Both are in exec form, and what Kubernetes gives is arguments for the same command."""
    assert json.loads(instructions["ENTRYPOINT"]) == ["dynserve", "run"]
    assert "command" not in container
    words = json.loads(instructions["CMD"])
    assert options_of(words)["--listen"] == options_of(container["args"])["--listen"]
    assert words[0] == container["args"][0]
    assert instructions["EXPOSE"] == words[2].rpartition(":")[2]
    assert instructions["STOPSIGNAL"] == "SIGTERM"


def test_the_image_has_what_it_copies() -> None:
    """Every file that the Dockerfile copies from the repository is there."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert names
    assert [name for name in names if not (DEPLOY.parent / name).exists()] == []
