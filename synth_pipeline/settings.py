"""One frozen `Settings`; the environment is read here, and nowhere else."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from synth_pipeline.errors import InputError
from synth_pipeline.schema import NS_PER_SECOND, Instrument
from synth_pipeline.storage import Place, place_of


class Settings(BaseSettings):
    """Where things live and the few dials that a desk turns; each is an environment variable `SYNTH_…`."""

    model_config = SettingsConfigDict(env_prefix="SYNTH_", frozen=True, extra="forbid")

    home: Path = Field(
        Path(".synth"), description="Root of everything: data, dagster, mlflow, hot tier and copies of remote data."
    )
    data_url: str = Field(
        "", description="Where partitions lie if not in the home: a folder, or a URL such as s3://bucket/prefix."
    )
    inbox: Path = Field(
        Path("inbox"), validate_default=True, description="Where recordings are dropped; relative to the home."
    )
    inbox_settle_seconds: float = Field(
        60.0, ge=0, description="How long a file in the inbox must lie unchanged before it counts as whole."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random; same inputs and seed give the same bytes.")
    step_ms: int = Field(500, gt=0, description="Grid step of the features, in milliseconds.")
    lookback_days: int = Field(
        5, gt=0, description="Days of features, ending with the partition's own, that a fit sees."
    )
    train_fraction: float = Field(
        0.7, gt=0, lt=1, description="Share of the look-back that is fitted on; the rest is held out."
    )
    sample_paths: int = Field(16, gt=0, description="Paths in a synthetic dataset.")
    fidelity_threshold: float = Field(50.0, ge=0, le=100, description="Fidelity below which the asset check warns.")
    first_day: date = Field(date(2012, 1, 1), description="First UTC day that Dagster offers as a partition.")
    generators: str = Field(
        "self_exciting_jump_diffusion,block_bootstrap,wgan_gp",
        description="Generators that get assets and that `run` fits, by comma.",
    )
    accelerator: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="What networks are trained on; auto takes the GPU where there is one."
    )
    devices: int = Field(1, ge=1, description="Processes that train one network together, a GPU or a core each.")
    mixed_precision: bool = Field(False, description="Whether networks compute in bfloat16, on a GPU only.")
    warm_start: bool = Field(
        True, description="Whether a network of a night starts from its last checkpoint of the week, if there is one."
    )
    nightly_hour: int = Field(1, ge=0, le=23, description="Hour of the nightly schedule; the day ends at 0 UTC.")
    nightly_timezone: str = Field("UTC", description="Time zone of that hour, such as Europe/Berlin.")
    nightly_instruments: str = Field(
        "", description="Instruments of the nightly schedule, by comma; empty means all that Dagster knows."
    )
    nightly_catch_up_days: int = Field(
        7, ge=1, le=366, description="Days, yesterday included, that a night looks back over for late and missed ones."
    )
    alert_url: str = Field(
        "",
        description="Who hears of failed runs: a Slack or other webhook, or "
        "smtp://USER:PASSWORD@HOST:PORT/?from=A@X&to=B@X; empty means nobody.",
    )
    executor: Literal["processes", "ray"] = Field(
        "processes", description="Where Dagster runs steps: processes of this machine, or a Ray cluster (extra [ray])."
    )
    gpu: bool | None = Field(
        None, description="Whether training takes a GPU; by default if this machine has one. Say so for other machines."
    )
    step_memory_gib: float = Field(
        0.0, ge=0.0, description="GiB that a step of a run may take; 0 is its share: two steps have half each."
    )
    venue_urls: dict[str, dict[Literal["websocket", "rest"], str]] = Field(
        default_factory=dict,
        description="Other addresses of venues, as JSON: "
        '{"binance_usdm": {"websocket": "ws://127.0.0.1:9443", "rest": "http://127.0.0.1:9443"}}.',
    )
    tracking: bool = Field(True, description="Whether every materialization leaves an MLflow run.")
    mlflow_tracking_uri: str = Field("", description="MLflow store; empty means sqlite in the home folder.")
    mlflow_artifacts: str = Field(
        "", description="Where runs keep files unless a server does: a URL such as s3://bucket/mlflow; empty: the home."
    )
    dagster_url: str = Field("http://127.0.0.1:3000", description="Where links to the Dagster UI point.")
    mlflow_url: str = Field("http://127.0.0.1:5000", description="Where links to the MLflow UI point.")

    def __init__(self, **values: Any) -> None:
        """Take values by name and the rest from the environment. Raises `InputError` for a value that does not fit."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = "_".join(map(str, first["loc"])).upper()
            raise InputError(f"setting SYNTH_{name}={first['input']!r} does not fit: {first['msg']}") from None
        except SettingsError as error:
            raise InputError(f"a setting is no JSON where it must be ({error}): see its description") from None

    @field_validator("data_url")
    @classmethod
    def _usable(cls, data_url: str) -> str:
        if data_url:
            place_of(data_url)
        return data_url

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @field_validator("inbox")
    @classmethod
    def _under_home(cls, inbox: Path, info: ValidationInfo) -> Path:
        # Without a valid home there is an error of its own.
        return Path(info.data.get("home", "."), inbox.expanduser())

    @field_validator("nightly_timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no time zone of this name is known, such as UTC or Europe/Berlin") from None
        return name

    @field_validator("step_ms")
    @classmethod
    def _divides_a_day(cls, step_ms: int) -> int:
        if 86_400_000 % step_ms:
            raise ValueError("a day must be a whole number of steps, or a bucket would lie over midnight")
        return step_ms

    @property
    def data(self) -> Place:
        """Where partitions lie. Raises `InputError` for an address that cannot be used."""
        return place_of(self.data_url) if self.data_url else self.home

    @property
    def copies(self) -> Path:
        """Where copies of remote files lie; may be deleted at any time."""
        return self.home / "cache"

    @property
    def step_ns(self) -> int:
        """Grid step in nanoseconds."""
        return self.step_ms * (NS_PER_SECOND // 1000)

    @property
    def tracking_uri(self) -> str:
        """The MLflow tracking store in effect."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def artifacts(self) -> str:
        """The URL below which runs keep files."""
        return self.mlflow_artifacts.rstrip("/") or (self.home / "mlflow-artifacts").as_uri()

    @property
    def generator_names(self) -> tuple[str, ...]:
        """The generators in effect, in the order given."""
        return tuple(name.strip() for name in self.generators.split(",") if name.strip())

    @property
    def nightly_names(self) -> tuple[Instrument, ...]:
        """The instruments of the nightly schedule, in the order given. Raises `InputError` for what is no name."""
        names = (name.strip() for name in self.nightly_instruments.split(","))
        return tuple(Instrument.parse(name) for name in names if name)

    def partition(self, stage: str, instrument: Instrument, cell: object, *more: str) -> Place:
        """Return the folder of one partition of one stage; the cell is a day, or a timeframe of bars."""
        return self.data.joinpath(stage, instrument.venue, instrument.symbol, str(cell), *more)
