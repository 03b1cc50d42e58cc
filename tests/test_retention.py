"""Old partitions go, and nothing that a partition which stays was made from."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth_pipeline import stages
from synth_pipeline.errors import InputError, NoDataError, SynthError, UnknownNameError
from synth_pipeline.lineage import commit, graph, manifests, references
from synth_pipeline.lineage.manifests import Manifest
from synth_pipeline.settings import Settings
from synth_pipeline.stages.retention import Swept, _closed
from synth_pipeline.storage import place_of
from tests import object_stores

s3, url = object_stores.s3, object_stores.url
NOW = datetime(2026, 1, 31, tzinfo=UTC)


def _made(workspace: stages.Workspace, stage: str, day: str, age: int, *inputs: Manifest) -> Manifest:
    """Commit a small partition that was made some days ago."""
    created = (NOW - timedelta(days=age)).isoformat(timespec="seconds")
    more = "/garch" if stage in ("checkpoints", "synthetic", "reports") else ""
    draft = Manifest(
        stage=stage,  # type: ignore[arg-type]
        key=f"binance_usdm.BTCUSDT/{day}{more}",
        inputs={each.ref: each.digest for each in inputs},
        code_version="test",
        config={},
        created_at=created,
    )
    kept = workspace.settings.copies
    beside = workspace.settings.home / draft.ref
    with commit.staging(beside) as place:
        (place / "rows.txt").write_text(f"{stage} {day}")
        return commit.commit(workspace.settings.data / draft.ref, draft, {"rows": place / "rows.txt"}, copies=kept)


def _chain(workspace: stages.Workspace, day: str, age: int) -> list[Manifest]:
    made: list[Manifest] = []
    for stage in ("raw", "ticks", "features", "checkpoints", "synthetic", "reports"):
        made.append(_made(workspace, stage, day, age, *made[-1:]))
    return made


def _refs(workspace: stages.Workspace) -> set[str]:
    top = f"{workspace.settings.data}/"
    return {str(folder).removeprefix(top) for folder in references.manifests(workspace.settings.data)}


def _gc(workspace: stages.Workspace, what: str | None = None, **options: object) -> Swept:
    return stages.gc(workspace, what, **({"days": 30, "now": NOW} | options))  # type: ignore[arg-type]


def test_old_partitions_go_downstream_first(workspace: stages.Workspace) -> None:
    old, young = _chain(workspace, "2025-11-01", 90), _chain(workspace, "2026-01-30", 1)
    planned = _gc(workspace, dry_run=True)
    assert _refs(workspace) == {each.ref for each in (*old, *young)}
    swept = _gc(workspace)
    assert swept == planned
    assert [each.ref for each in swept.expired] == [each.ref for each in reversed(old)]
    assert swept.kept == ()
    assert _refs(workspace) == {each.ref for each in young}
    assert graph.chain(workspace.settings.data, young[-1].ref).sound
    assert _gc(workspace) == Swept((), ())


def test_what_a_young_report_was_made_from_stays(workspace: stages.Workspace) -> None:
    old = _chain(workspace, "2025-11-01", 90)
    report = _made(workspace, "reports", "2026-01-30", 1, old[4], old[2])
    swept = _gc(workspace)
    assert [each.ref for each in swept.expired] == [old[5].ref]
    reasons = {each.ref: each.reason for each in swept.kept}
    assert set(reasons) == {each.ref for each in old[:5]}
    assert reasons[old[4].ref] == f"{report.ref} was made from it"
    assert graph.chain(workspace.settings.data, report.ref).sound


def test_stages_and_names_restrict(workspace: stages.Workspace) -> None:
    old = _chain(workspace, "2025-11-01", 90)
    swept = _gc(workspace, stages=("ticks", "synthetic"))
    assert swept.expired == ()
    assert {each.ref for each in swept.kept} == {old[1].ref, old[4].ref}
    assert [each.ref for each in _gc(workspace, "reports").expired] == [old[5].ref]
    with pytest.raises(NoDataError):
        _gc(workspace, "bybit.BTCUSDT")
    with pytest.raises(UnknownNameError, match="stage"):
        _gc(workspace, stages=("tick",))
    with pytest.raises(InputError, match="an age of -1 days"):
        _gc(workspace, days=-1)


def test_nothing_goes_while_a_manifest_cannot_be_read(workspace: stages.Workspace) -> None:
    old, young = _chain(workspace, "2025-11-01", 90), _chain(workspace, "2026-01-30", 1)
    (workspace.settings.home / young[5].ref / manifests.NAME).write_text("{")
    with pytest.raises(SynthError, match=f"{young[5].ref}.* is corrupt"):
        _gc(workspace)
    assert _refs(workspace) == {each.ref for each in (*old, *young)}


def test_a_bucket_too(url: str, tmp_path: Path) -> None:
    made = stages.Workspace.of(Settings(home=tmp_path / "home", data_url=url, tracking=False))
    old, young = _chain(made, "2025-11-01", 90), _chain(made, "2026-01-30", 1)
    assert len(_gc(made).expired) == len(old)
    assert _refs(made) == {each.ref for each in young}
    assert not place_of(url).joinpath(old[0].ref, old[0].outputs["rows"].path).exists()


names = st.sampled_from("abcdefgh")


@given(st.dictionaries(names, st.sets(names)), st.sets(names))
def test_the_closure_is_the_largest_that_leaves_no_reader_behind(inputs: dict[str, set[str]], old: set[str]) -> None:
    everything = set("abcdefgh")
    readers = {name: {reader for reader, needed in inputs.items() if name in needed} for name in everything}
    going, kept = _closed(old, readers)
    assert all(readers[name] <= going for name in going)
    assert {each.ref for each in kept} == old - going
    # The slow way: put back, again and again, whatever a partition that stays needs.
    slow = set(old)
    for _ in everything:
        slow -= {name for name in slow if readers[name] - slow}
    assert going == slow


def test_command(
    workspace: stages.Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from synth_pipeline.cli import main

    old = _chain(workspace, "2025-11-01", 90)
    monkeypatch.setenv("SYNTH_HOME", str(workspace.settings.home))
    monkeypatch.setattr("sys.argv", ["synth-pipeline", "gc", "--older-than", "0", "--stage", "reports", "--json"])
    with pytest.raises(SystemExit) as stopped:
        main()
    told = json.loads(capsys.readouterr().out)
    assert (stopped.value.code, told["removed"], told["dry_run"]) == (0, [old[5].ref], False)
    assert old[5].ref not in _refs(workspace)
