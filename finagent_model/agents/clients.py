"""A desk's chat clients behind one seam: AutoGen's `ChatCompletionClient`, one for each model.

A client is made when it is first needed: replaying a recorded decision needs no key.
"""

from __future__ import annotations

import asyncio
from typing import Any

from autogen_core.models import ChatCompletionClient

from finagent_model.agents import rules
from finagent_model.agents.providers import make_client, preload, require_usable, with_address
from finagent_model.agents.rules_client import RulesClient
from finagent_model.cassette.cassette import fingerprint
from finagent_model.domain.desk_config import DeskConfig
from finagent_model.domain.model_row import ModelRow
from finagent_model.domain.redact import redactor
from finagent_model.domain.roster import AgentRow
from finagent_model.settings import Settings


def with_addresses(config: DeskConfig, settings: Settings) -> DeskConfig:
    """The desk with every model's address settled, which is part of what replies are keyed by."""
    own = with_address(config, settings)
    models = {name: with_address(row, settings) for name, row in config.models.items()}
    return config.model_copy(update={"base_url": own.base_url, "models": models})


class ClientPool:
    """One client a model, made on the loop that uses it and remade when that loop is another (after
    a fork).
    """

    def __init__(self, config: DeskConfig, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self.secrets = settings.secrets
        """What no record and no signal may hold."""
        self.redact = redactor(self.secrets)
        self._clients: dict[tuple[int, str], ChatCompletionClient] = {}
        self.roster = config.roster
        self.roster_digest = fingerprint(
            {"agents": [row.model_dump(mode="json") for row in self.roster], "model": config.model}
        )
        """Of who sits at the desk."""
        self._rows: dict[str, ModelRow] = {row.name: config.model_of(row) for row in self.roster}
        self._identities = {name: _identity(row) for name, row in self._rows.items()}
        self._keys = {
            name: fingerprint(row.model_dump(mode="json")) for name, row in self._rows.items()
        }
        if any(row.client == "rules" for row in self._rows.values()):
            RulesClient(config)  # a roster that it can't play is refused now, not at a decision

    def model_of(self, row: AgentRow) -> ModelRow:
        """The model that an agent of the roster speaks by."""
        return self._rows[row.name]

    def identity(self, row: AgentRow) -> dict[str, Any]:
        """What tells an agent's replies from another model's: part of every fingerprint."""
        return self._identities[row.name]

    def client(self, row: AgentRow) -> ChatCompletionClient:
        """The client that an agent asks; call it on the loop. Raises ConfigError without a key."""
        key, model = (id(asyncio.get_running_loop()), self._keys[row.name]), self.model_of(row)
        if key not in self._clients:
            self._clients[key] = (
                RulesClient(self._config)
                if model.client == "rules"
                else make_client(model, self._settings, self._config.limits.call_timeout_s)
            )
        return self._clients[key]

    async def close(self) -> None:
        """Close what is open on this loop."""
        here = id(asyncio.get_running_loop())
        for key in [key for key in self._clients if key[0] == here]:
            client = self._clients.pop(key)
            await client.close()
            if type(client).__name__ == "OllamaChatCompletionClient":
                await client._client.close()  # type: ignore[attr-defined]  # its own does nothing

    def require_key(self) -> None:
        """Raise ConfigError now if calls to a model could not be made."""
        for model in self._config.models_used:
            require_usable(model, self._settings)

    def preload(self) -> None:
        """Import now what calls that can be made will need."""
        for model in self._config.models_used:
            preload(model, self._settings)

    def exported(self, row: AgentRow) -> ChatCompletionClient:
        """A client to be written down, never to be called: it holds no key."""
        model = self.model_of(row)
        if model.client == "rules":
            return RulesClient(self._config)
        names = {f: "set in the environment" for f in _KEYS}
        keyless = Settings.model_validate(
            {str(Settings.model_fields[f].alias): said for f, said in names.items()}
            | {"FINAGENT_COMPONENTS": ",".join(self._settings.components)}
        )
        return make_client(model, keyless, self._config.limits.call_timeout_s)


_KEYS = ("openai_api_key", "azure_openai_api_key", "anthropic_api_key")


def _identity(model: ModelRow) -> dict[str, Any]:
    if model.client == "rules":
        return {"client": "rules", "version": rules.VERSION}
    said: dict[str, Any] = {
        "client": model.client,
        "base_url": model.base_url,
        "model": model.model,
        "sampling": model.sampling.model_dump(),
        "structured": model.sends_schema,
    }
    if model.client == "azure":
        said["api_version"] = model.api_version
    if model.component is not None:
        said["component"] = model.component
    return said
