"""The lineage of a result as a picture: Graphviz, and a page of HTML that needs nothing else.

Each partition is drawn once, however many read it. What is stale, missing or damaged is red, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from synth_pipeline.lineage.graph import SHORT, Node, walk

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
ul { list-style: none; border-left: 1px solid color-mix(in srgb, currentColor 25%, transparent); padding-left: 1.2rem; }
body > ul { border: 0; padding: 0; }
code { font-size: .9em; opacity: .75; }
summary { cursor: pointer; }
dl { display: grid; grid-template-columns: max-content auto; gap: 0 1rem; margin: .2rem 0 .6rem 1rem; }
dt { opacity: .6; } dd { margin: 0; overflow-wrap: anywhere; }
.problem { color: #c62828; font-weight: 600; }
"""


def to_dot(node: Node) -> str:
    """Return the graph in the DOT language, raw bytes on the left (https://graphviz.org/doc/info/lang.html)."""
    return "\n".join(
        ["digraph lineage {", "  rankdir=LR;", "  node [shape=box, fontname=Helvetica];", *_dot(node), "}\n"]
    )


def _dot(node: Node) -> Iterator[str]:
    drawn: set[str] = set()
    edges: set[str] = set()
    for found in walk(node):
        for child in found.children:
            edges.add(f"  {_quoted(child.ref)} -> {_quoted(found.ref)};")
        if found.ref in drawn:
            continue
        drawn.add(found.ref)
        label = "\\n".join((*found.ref.split("/", 1), found.digest[:SHORT]))
        color = ', color="#c62828"' if found.problem else ""
        tip = f", tooltip={_quoted(found.problem)}" if found.problem else ""
        yield f"  {_quoted(found.ref)} [label={_quoted(label)}{color}{tip}];"
    yield from sorted(edges)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def to_html(node: Node) -> str:
    """Return one self-contained page: a tree that opens and closes, each partition with what it was made with."""
    title = f"Lineage of {escape(node.ref)}"
    tree = "".join(_items(node))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><ul>{tree}</ul></html>\n"
    )


def _items(node: Node) -> Iterator[str]:
    drawn: set[str] = set()
    waiting: list[Node | str] = [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
            continue
        yield f"<li>{_heading(each)}"
        again = each.ref in drawn and bool(each.children)
        drawn.add(each.ref)
        if each.manifest is not None:
            yield "as above</details>" if again else f"<dl>{''.join(_facts(each))}</dl></details>"
        waiting.append("</li>")
        if each.children and not again:
            yield "<ul>"
            waiting += ["</ul>", *reversed(each.children)]


def _heading(node: Node) -> str:
    problem = f' <span class="problem">{escape(node.problem)}</span>' if node.problem else ""
    text = f"{escape(node.ref)} <code>{node.digest[:SHORT]}</code>{problem}"
    return text if node.manifest is None else f"<details><summary>{text}</summary>"


def _facts(node: Node) -> Iterator[str]:
    assert node.manifest is not None
    manifest = node.manifest
    told = {"made": manifest.created_at, "code": manifest.code_version, "seed": manifest.seed}
    told |= {"MLflow run": manifest.mlflow_run_id, "Dagster run": manifest.dagster_run_id}
    told |= {f"with {name}": value for name, value in manifest.config.items() if value not in (None, [], {})}
    told |= manifest.environment
    for name, value in told.items():
        if value not in (None, ""):
            yield f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
    for artifact in manifest.outputs.values():
        yield f"<dt>{escape(artifact.path)}</dt><dd>{artifact.bytes:,} bytes, sha256 {artifact.sha256}</dd>"
