"""A backfill through the GraphQL of a running Dagster server: launched, watched, finished.

The mutation `launchPartitionBackfill` with `partitionsByAssets` names the cells of every asset, so nothing is dragged
in by a mapping that looks back; `partitionBackfillOrError` tells how far it is. Both are in the schema that the server
shows at `/graphql`.
"""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import dagster as dg

from synth_pipeline.errors import SynthError
from synth_pipeline.orchestration.backfill import Outcome, Plan, outcome
from synth_pipeline.orchestration.inprocess import instance_folder, opened_instance
from synth_pipeline.orchestration.partitions import cell
from synth_pipeline.orchestration.results import failures
from synth_pipeline.progress import Progress, silent
from synth_pipeline.settings import Settings

_PATIENCE_S = 30.0
_KNOCK_S = 2.0
_POLL_S = 1.0
_LAUNCH = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  ... on PartitionKeysNotFoundError { message } ... on UnauthorizedError { message } } }"""
_WATCH = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename
  ... on PythonError { message }
  ... on PartitionBackfill { status error { message } assetBackfillData { assetBackfillStatuses {
    ... on AssetPartitionsStatusCounts { assetKey { path }
      numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed } } } } } }"""
_FAILED = [dg.DagsterRunStatus.FAILURE]
_TELLING = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.ASSET_MATERIALIZATION}
_DONE = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}


def serves(settings: Settings) -> bool:
    """Whether the server at `SYNTH_DAGSTER_URL` answers and is of this home."""
    try:
        info = ask(settings, "{ instance { info } }", {}, _KNOCK_S)["instance"]["info"]
    except (URLError, OSError, ValueError, KeyError, TypeError):
        return False
    return str(instance_folder(settings)) in (info or "")


def launch(settings: Settings, plan: Plan) -> str:
    """Ask the server for the due cells and return the id of the backfill. Raises `SynthError` when it refuses."""
    with opened_instance(settings, [*dict.fromkeys(chunk.instrument for chunk in plan.chunks)]):
        pass
    ranges = [
        {"start": str(cell(chunk.instrument, chunk.days[0])), "end": str(cell(chunk.instrument, chunk.days[-1]))}
        for chunk in plan.chunks
    ]
    wanted = [{"assetKey": {"path": [*key.path]}, "partitions": {"ranges": ranges}} for key in plan.assets]
    answer = ask(settings, _LAUNCH, {"params": {"partitionsByAssets": wanted, "title": "synth-pipeline backfill"}})
    found = answer["launchPartitionBackfill"]
    if found["__typename"] != "LaunchBackfillSuccess":
        raise SynthError(f"Dagster at {settings.dagster_url} refused the backfill: {found.get('message', found)}")
    return str(found["backfillId"])


def watch(settings: Settings, plan: Plan, backfill_id: str, progress: Progress = silent) -> Outcome:
    """Wait for a backfill; the cells that it did not make are in the outcome. Raises `SynthError` when it is lost."""
    while True:
        found = ask(settings, _WATCH, {"id": backfill_id})["partitionBackfillOrError"]
        if found["__typename"] != "PartitionBackfill":
            raise SynthError(f"backfill {backfill_id} is lost: {found.get('message', found['__typename'])}")
        counts = (found["assetBackfillData"] or {}).get("assetBackfillStatuses") or []
        done = sum(each["numPartitionsMaterialized"] + each["numPartitionsFailed"] for each in counts if each)
        total = sum(each["numPartitionsTargeted"] for each in counts if each) or plan.cells
        progress(done, total, f"backfill {backfill_id}: {found['status'].lower()}")
        if found["status"] in _DONE:
            return _outcome(settings, plan, backfill_id, found)
        time.sleep(_POLL_S)


def _outcome(settings: Settings, plan: Plan, backfill_id: str, found: Any) -> Outcome:
    where = f"{settings.dagster_url.rstrip('/')}/runs/b/{backfill_id}"
    reason = (found["error"] or {}).get("message", "") or f"see {where}"
    told: dict[str, str] = {}
    with opened_instance(settings, []) as instance:
        for run in instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}, statuses=_FAILED)):
            records = instance.all_logs(run.run_id, of_type=_TELLING)
            alone = [key] if (key := run.tags.get("dagster/partition")) else []
            told = failures((each.dagster_event for each in records if each.dagster_event), alone) | told
    return outcome(settings, plan, told, " ".join(reason.split()))


def ask(settings: Settings, query: str, variables: dict[str, Any], patience_s: float = _PATIENCE_S) -> dict[str, Any]:
    """Return the data of a GraphQL query. Raises `SynthError` when it is refused, `OSError` when nobody answers."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    address = f"{settings.dagster_url.rstrip('/')}/graphql"
    with urlopen(Request(address, body, {"Content-Type": "application/json"}), timeout=patience_s) as answer:
        document = json.load(answer)
    if document.get("errors"):
        raise SynthError(f"Dagster at {settings.dagster_url}: {document['errors'][0]['message']}")
    data: dict[str, Any] = document["data"]
    return data
