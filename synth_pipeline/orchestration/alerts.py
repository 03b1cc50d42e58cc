"""The sensor `alerts`: a failed run is told to the one address that `SYNTH_ALERT_URL` names.

`https://…` is a webhook: a POST of a JSON object whose `text` is what Slack, Mattermost and Teams show
(https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks); the other members are for programs.
`smtp://USER:PASSWORD@HOST:PORT/?from=A@X&to=B@X` is a mail server (`smtps` speaks TLS from the start).
"""

from __future__ import annotations

import json
import smtplib
from email.message import EmailMessage
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

import dagster as dg

from synth_pipeline.errors import InputError
from synth_pipeline.orchestration.resources import Verbs
from synth_pipeline.settings import Settings

_PATIENCE_S = 10.0
_SHOWN = 500
"""Characters of an error that are told."""


@dg.run_failure_sensor(
    name="alerts",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Tells the address in SYNTH_ALERT_URL of every run that failed; without one it does nothing.",
)
def alerts(context: dg.RunFailureSensorContext, verbs: dg.ResourceParam[Verbs]) -> None:
    """Tell of one failed run."""
    run, settings = context.dagster_run, verbs.settings
    document = {
        "run_id": run.run_id,
        "job": run.job_name,
        "partition": run.tags.get("dagster/partition", ""),
        "url": f"{settings.dagster_url.rstrip('/')}/runs/{run.run_id}",
        "error": _reason(context)[:_SHOWN],
    }
    tell(settings, document)


def _reason(context: dg.RunFailureSensorContext) -> str:
    steps = [
        f"{event.step_key}: {error.cause.message if error.cause else error.message}".strip()
        for event in context.get_step_failure_events()
        if (error := event.step_failure_data.error) is not None
    ]
    return "; ".join(steps) or context.failure_event.message or ""


def tell(settings: Settings, document: dict[str, str]) -> None:
    """Send one alert where the settings say, nowhere by default. Raises `InputError` for an address of another kind,
    `OSError` when it does not answer."""
    if not settings.alert_url:
        return
    address = urlsplit(settings.alert_url)
    subject = " ".join(f"{document['job']} {document['partition']}".split())
    text = f"Run of {subject} failed: {document['error']}\n{document['url']}"
    if address.scheme in ("http", "https"):
        body = json.dumps({"text": text, **document}).encode()
        request = Request(settings.alert_url, body, {"Content-Type": "application/json"})
        urlopen(request, timeout=_PATIENCE_S).close()
    elif address.scheme in ("smtp", "smtps"):
        _mail(address, f"synth-pipeline: {subject} failed", text)
    else:
        raise InputError(
            f"SYNTH_ALERT_URL has scheme {address.scheme!r}: give the https:// address of a webhook, or "
            "smtp://USER:PASSWORD@HOST:PORT/?from=A@X&to=B@X"
        )


def _mail(address: SplitResult, subject: str, text: str) -> None:
    asked = parse_qs(address.query)
    if missing := [name for name in ("from", "to") if name not in asked]:
        raise InputError(f"SYNTH_ALERT_URL does not say {' and '.join(missing)}: add ?from=A@X&to=B@X")
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, asked["from"][0], ", ".join(asked["to"])
    message.set_content(text)
    is_tls = address.scheme == "smtps"
    server: type[smtplib.SMTP] = smtplib.SMTP_SSL if is_tls else smtplib.SMTP
    with server(address.hostname or "", address.port or 0, timeout=_PATIENCE_S) as connection:
        if not is_tls and connection.has_extn("starttls"):
            connection.starttls()
        if address.username:
            connection.login(unquote(address.username), unquote(address.password or ""))
        connection.send_message(message)
