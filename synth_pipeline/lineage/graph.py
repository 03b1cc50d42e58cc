"""The way back: from a report, or anything else, through its manifests to the raw bytes.

Finding what a person means by a text is in `references.py`; this file walks, compares and draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

from synth_pipeline.errors import SynthError
from synth_pipeline.lineage.manifests import FILE_INPUT, Manifest, damaged, load
from synth_pipeline.lineage.references import resolve_all
from synth_pipeline.storage import Place

SHORT = 12
"""Hex digits of a digest that a person is shown."""


@dataclass(frozen=True)
class Node:
    """One partition, or one file from outside, and what it was made from."""

    ref: str
    stage: str
    """A stage, `file` for an outside file, or `run` for a Dagster run whose several results are the children."""
    digest: str
    """What is there now; of a file, or where nothing is there, what the reader above it recorded."""
    manifest: Manifest | None
    children: tuple[Node, ...] = ()
    problem: str | None = None
    """Why this is not what the reader above it recorded: `stale: …`, `missing: …`, `damaged: …`, `unreadable: …`."""

    @cached_property
    def sound(self) -> bool:
        """True when neither this nor anything upstream has a problem."""
        return all(node.problem is None for node in walk(self))


def chain(home: Place, text: str) -> Node:
    """Return the graph upstream of what a text means (`references.resolve_all` says which texts mean something).

    A partition that several others read is one shared node, except for its `problem`, which belongs to the reader.
    Raises `NoDataError` when the text names nothing, `SynthError` when the manifest that it names cannot be read.
    """
    refs = resolve_all(home, text)
    if len(refs) > 1:
        return Node(text, "run", "", None, tuple(_chain(home, ref) for ref in refs))
    return _chain(home, refs[0])


def _chain(home: Place, ref: str) -> Node:
    found = _upstream(home, ref)
    if isinstance(reason := found[ref], str):
        raise SynthError(f"{ref} is {reason}")
    needs = {name: _inputs(entry) for name, entry in found.items()}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise SynthError(
            f"{ref} depends on itself through {' ← '.join(error.args[1])}: its manifests were altered"
        ) from error
    nodes: dict[str, Node] = {}
    for name in order:
        entry = found.get(name)
        if isinstance(entry, Manifest):
            children = tuple(_edge(nodes, child, digest) for child, digest in entry.inputs.items())
            gone = damaged(home / name, entry)
            problem = f"damaged: {gone[0]} is missing or was altered" if gone else None
            nodes[name] = Node(name, entry.stage, entry.digest, entry, children, problem)
        else:
            stage = "file" if name.startswith(FILE_INPUT) else name.partition("/")[0]
            nodes[name] = Node(name, stage, "", None, problem=entry)
    return nodes[ref]


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and everything upstream of it, nearest first, each REF once for every distinct problem."""
    seen: set[tuple[str, str, str | None]] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop(0)
        if (mark := (node.ref, node.digest, node.problem)) not in seen:
            seen.add(mark)
            yield node
            waiting.extend(node.children)


def render(node: Node) -> str:
    """Return the graph as a text tree; raw files stand at the leaves with their whole SHA-256."""
    lines: list[str] = []
    drawn: set[str] = set()
    waiting: list[tuple[Node, str, str]] = [(node, "", "")]
    while waiting:
        node, lead, below = waiting.pop()
        leaves = _raw_files(node)
        children = node.children if node.stage != "raw" else ()
        again = node.ref in drawn and bool(leaves or children)
        lines.append(lead + _line(node) + (" (inputs as above)" if again else ""))
        if again:
            continue
        drawn.add(node.ref)
        last = len(leaves) + len(children) - 1
        for position, leaf in enumerate(leaves):
            lines.append(below + ("└── " if position == last else "├── ") + leaf)
        for position, child in reversed(list(enumerate(children, len(leaves)))):
            branch, under = ("└── ", "    ") if position == last else ("├── ", "│   ")
            waiting.append((child, below + branch, below + under))
    return "\n".join(lines)


def to_json(node: Node) -> dict[str, Any]:
    """Return the graph as JSON values: `nodes` nearest first, each once, its edges under `inputs`."""
    nodes = {found.ref: found for found in reversed(list(walk(node)))}
    return {
        "ref": node.ref,
        "sound": node.sound,
        "problems": [f"{found.ref}: {found.problem}" for found in walk(node) if found.problem],
        "nodes": [_node_json(found) for found in reversed(nodes.values())],
    }


def _upstream(home: Place, ref: str) -> dict[str, Manifest | str]:
    """Return the manifest of every REF within reach, or the reason why there is none."""
    found: dict[str, Manifest | str] = {}
    waiting = [ref]
    while waiting:
        name = waiting.pop()
        if name in found or name.startswith(FILE_INPUT):
            continue
        found[name] = entry = _read(home / name)
        waiting.extend(_inputs(entry))
    return found


def _read(folder: Place) -> Manifest | str:
    try:
        return load(folder) or f"missing: nothing is committed in {folder}"
    except SynthError as error:
        return f"unreadable: {error}"


def _inputs(entry: Manifest | str) -> list[str]:
    return list(entry.inputs) if isinstance(entry, Manifest) else []


def _edge(nodes: dict[str, Node], name: str, recorded: str) -> Node:
    """Return an input as its reader sees it: with the recorded digest compared to what is there now."""
    node = nodes[name]
    if node.manifest is None:
        return replace(node, digest=recorded)
    if node.problem is None and node.digest != recorded:
        return replace(node, problem=f"stale: was {recorded[:SHORT]}, now {node.digest[:SHORT]}")
    return node


def _line(node: Node) -> str:
    words = [node.ref, node.digest if node.stage == "file" else node.digest[:SHORT]]
    if node.manifest and node.manifest.rows is not None:
        words.append(f"{node.manifest.rows:,} rows")
    if node.problem:
        words.append(f"[{node.problem}]")
    return "  ".join(words)


def _raw_files(node: Node) -> list[str]:
    """Return the lines of what a raw partition holds and was copied from, digests in full."""
    if node.stage != "raw" or node.manifest is None:
        return []
    held = [f"{artifact.path}  {artifact.sha256}" for artifact in node.manifest.outputs.values()]
    return held + [_line(child) for child in node.children]


def _node_json(node: Node) -> dict[str, Any]:
    entry: dict[str, Any] = {"ref": node.ref, "stage": node.stage, "digest": node.digest, "problem": node.problem}
    if node.manifest is None:
        return entry | ({"results": [child.ref for child in node.children]} if node.children else {})
    manifest = node.manifest
    entry |= {
        name: getattr(manifest, name) for name in ("fingerprint", "code_version", "config", "seed", "rows", "facts")
    }
    entry |= {
        name: getattr(manifest, name) for name in ("created_at", "mlflow_run_id", "dagster_run_id", "environment")
    }
    entry["outputs"] = {
        name: {"path": artifact.path, "sha256": artifact.sha256, "bytes": artifact.bytes, "rows": artifact.rows}
        for name, artifact in manifest.outputs.items()
    }
    entry["inputs"] = [
        {"ref": child.ref, "digest": manifest.inputs[child.ref], "problem": child.problem} for child in node.children
    ]
    return entry
