"""Versions of registered models: who is champion, and what was decided of the others.

A version is found by the run that registered it; what was decided is in its tags `synth/…`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from synth_pipeline.errors import SynthError
from synth_pipeline.lineage.runs import Champion

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""What MLflow says of a model and of an alias that there is not."""


def champion(client: MlflowClient, model: str) -> Champion | None:
    """Return the version of a model that has the alias `champion`; None when none has."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(model, "champion")
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        return None
    tags = client.get_run(str(found.run_id)).data.tags
    judged = found.tags.get("synth/fidelity")
    return Champion(
        version=str(found.version),
        ref=tags.get("synth/ref", ""),
        digest=tags.get("synth/digest", ""),
        fidelity=None if judged is None else float(judged),
    )


def version_of(client: MlflowClient, model: str, run_id: str) -> str | None:
    """Return the version of a model that a run registered; None when it registered none."""
    found = client.search_model_versions(f"name='{model}' and run_id='{run_id}'")
    return str(found[0].version) if found else None


def judge(client: MlflowClient, model: str, run_id: str, verdict: Mapping[str, str], *, promoted: bool) -> None:
    """Tag a version with what was decided; promoted, it becomes `champion`. Raises `SynthError` for an unknown one."""
    version = version_of(client, model, run_id)
    if version is None:
        raise SynthError(f"MLflow has no version of model {model} of run {run_id}: fit it again")
    for name, value in verdict.items():
        client.set_model_version_tag(model, version, f"synth/{name}", value)
    client.set_model_version_tag(model, version, "synth/promoted", str(promoted).lower())
    if promoted:
        client.set_registered_model_alias(model, "champion", version)
