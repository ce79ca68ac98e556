"""docker-compose.yml, parsed: the part of the Compose Specification that is used here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from support.places import ROOT

SPAN = r"^\d+(s|m)$"
SIZE = r"^\d+(m|g)$"


class Strict(BaseModel):
    """The part of the Compose Specification that is used here; a slip is an unknown name."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Build(Strict):
    context: str
    dockerfile: str
    args: dict[str, str]


class After(Strict):
    condition: Literal["service_healthy", "service_completed_successfully"]


class Health(Strict):
    test: Annotated[list[str], Field(min_length=2)]
    interval: Annotated[str, Field(pattern=SPAN)]
    timeout: Annotated[str, Field(pattern=SPAN)]
    retries: Annotated[int, Field(ge=1)]
    start_period: Annotated[str, Field(pattern=SPAN)] = "0s"


class EnvFile(Strict):
    path: str
    required: bool


class Logging(Strict):
    driver: Literal["json-file"]
    options: dict[Literal["max-size", "max-file"], str]


class SecretFile(Strict):
    file: Annotated[str, Field(pattern=r"^\./secrets/[a-z0-9_]+$")]


class Service(Strict):
    image: Annotated[str, Field(pattern=r"^[\w/.-]+:[\w.-]+$")]
    build: Build | None = None
    profiles: list[str] = []
    pull_policy: Literal["never"] | None = None
    init: bool = False
    restart: Literal["no", "unless-stopped"]
    security_opt: list[Literal["no-new-privileges:true"]]
    cap_drop: list[Literal["ALL"]]
    cap_add: list[Literal["CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"]] = []
    user: str | None = None
    read_only: bool = False
    tmpfs: list[str] = []
    mem_limit: Annotated[str, Field(pattern=SIZE)]
    logging: Logging
    secrets: list[str] = []
    entrypoint: list[str] = []
    env_file: list[EnvFile] = []
    command: list[str] = []
    environment: dict[str, str] = {}
    depends_on: dict[str, After] = {}
    volumes: list[str] = []
    ports: list[str] = []
    healthcheck: Health | None = None
    stop_grace_period: Annotated[str, Field(pattern=SPAN)] | None = None

    @property
    def is_ours(self) -> bool:
        return self.image.startswith("finagent:")


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


SECRETS = TypeAdapter(dict[str, SecretFile]).validate_python(compose()["secrets"])
SERVICES = TypeAdapter(dict[str, Service]).validate_python(compose()["services"])
OURS = {name: service for name, service in SERVICES.items() if service.is_ours}
