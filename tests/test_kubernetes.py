"""The example of docs/kubernetes is what Kubernetes, Dagster and our settings understand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema

from synth_pipeline.orchestration import definitions, pools
from synth_pipeline.settings import Settings

FOLDER = Path(__file__).parents[1] / "docs/kubernetes"
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((FOLDER / "synth-pipeline.yaml").read_text()))
IMAGE = "REGISTRY/synth-pipeline:TAG"


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in DOCUMENTS if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


SETTINGS: dict[str, str] = named("ConfigMap", "synth-settings")["data"]
INSTANCE: dict[str, Any] = yaml.safe_load(named("ConfigMap", "dagster-instance")["data"]["dagster.yaml"])
LAUNCHER: dict[str, Any] = INSTANCE["run_launcher"]["config"]


def containers() -> list[dict[str, Any]]:
    deployments = [each for each in DOCUMENTS if each["kind"] == "Deployment"]
    return [container for each in deployments for container in each["spec"]["template"]["spec"]["containers"]]


def test_every_variable_is_one_that_somebody_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = {f"SYNTH_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in SETTINGS if name.startswith("SYNTH_")} <= ours
    assert {name for name in SETTINGS if not name.startswith("SYNTH_")} == {*pools.threads(), "AWS_DEFAULT_REGION"}
    assert all(isinstance(value, str) for value in SETTINGS.values())
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert str(settings.data) == SETTINGS["SYNTH_DATA_URL"]
    assert settings.gpu is False


def test_the_parts_name_each_other() -> None:
    assert {container["image"] for container in containers()} == {IMAGE}
    code = named("Deployment", "synth-code")["spec"]["template"]["spec"]["containers"][0]
    assert code["env"] == [{"name": "DAGSTER_CURRENT_IMAGE", "value": IMAGE}]
    assert code["args"][-1] == definitions.__name__
    for container in containers():
        assert container["envFrom"] == [
            {"configMapRef": {"name": "synth-settings"}},
            {"secretRef": {"name": "synth-secrets"}},
        ]
    assert (LAUNCHER["env_config_maps"], LAUNCHER["env_secrets"]) == (["synth-settings"], ["synth-secrets"])
    assert LAUNCHER["instance_config_map"] == named("ConfigMap", "dagster-instance")["metadata"]["name"]
    assert LAUNCHER["service_account_name"] == named("ServiceAccount", "dagster")["metadata"]["name"]
    assert {each["metadata"]["namespace"] for each in DOCUMENTS} == {LAUNCHER["job_namespace"]}
    workspace = yaml.safe_load(named("ConfigMap", "dagster-instance")["data"]["workspace.yaml"])
    (server,) = (each["grpc_server"] for each in workspace["load_from"])
    service = named("Service", server["host"])["spec"]
    assert service["ports"] == [{"port": server["port"]}]
    assert str(server["port"]) in code["args"]
    dockerfile = (FOLDER / "Dockerfile").read_text()
    assert re.search(rf"DAGSTER_HOME={LAUNCHER['dagster_home']} SYNTH_HOME={SETTINGS['SYNTH_HOME']}\n", dockerfile)


def test_the_instance_is_ours_but_for_storage_and_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql://…")  # of the secret
    parsed = process_config(dagster_instance_config_schema(), INSTANCE)
    assert parsed.success, parsed.errors
    ours = yaml.safe_load((FOLDER.parents[1] / "dagster.yaml").read_text())
    apart = {name: value for name, value in INSTANCE.items() if name not in ("storage", "run_launcher")}
    assert apart == ours


def test_the_launcher_takes_its_configuration() -> None:
    launcher = pytest.importorskip("dagster_k8s", reason="the extra [kubernetes] is not installed").K8sRunLauncher
    parsed = process_config(launcher.config_type(), LAUNCHER)
    assert parsed.success, parsed.errors
    assert not process_config(launcher.config_type(), LAUNCHER | {"job_image_name": "x"}).success


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_kubernetes_knows_every_field(document: dict[str, Any]) -> None:
    models = pytest.importorskip("kubernetes.client", reason="the extra [kubernetes] is not installed").models
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

    kind = getattr(models, f"V1{document['kind']}")
    assert k8s_model_from_dict(kind, k8s_snake_case_dict(kind, document)).metadata.namespace == "synth"
