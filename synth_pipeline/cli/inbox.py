"""The inbox, looked at by hand: what lies there, what it is, what it waits for."""

from __future__ import annotations

import time
from dataclasses import replace

from synth_pipeline.cli.face import Json, app, out, print_json
from synth_pipeline.settings import Settings


@app.command(epilog="Example: SYNTH_INBOX=/data/recordings synth-pipeline inbox --json")
def inbox(as_json: Json = False) -> None:
    """List what lies in the inbox: days that are ready, files that still grow, files that are refused."""
    from synth_pipeline.stages.inbox import State, look

    settings = Settings()
    # The first look takes the stamps that the second one finds unchanged; what it asked for or refused, nobody saw.
    stamps = replace(look(settings, State(), time.time_ns()).state, refused={}, asked={})
    found = look(settings, stamps, time.time_ns())
    ready = {f"{due.instrument} {due.day}": [str(path) for path in due.sources] for due in found.requests}
    refused = {str(settings.inbox / name): reason for name, (*_, reason) in found.state.refused.items()}
    if as_json:
        print_json({"inbox": str(settings.inbox), "ready": ready, "waiting": found.waiting, "refused": refused})
        return
    out.print(f"[bold]{settings.inbox}[/bold]")
    for day, sources in ready.items():
        out.print(f"  ready    {day}, {len(sources)} file(s)", highlight=False, soft_wrap=True)
    for name, reason in found.waiting.items():
        out.print(f"  waiting  {name}: {reason}", highlight=False, soft_wrap=True)
    for reason in refused.values():
        out.print(f"  refused  {reason}", highlight=False, soft_wrap=True)
    if not (ready or found.waiting or refused):
        out.print("  nothing; `synth-pipeline up` watches it, and `record` writes there", highlight=False)
