"""The list of all providers, and those that are configured in this process."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from outwait.config.errors import ConfigError, explain
from outwait.config.masking import cut
from outwait.config.names import PREFIX, variable
from outwait.worker.model.errors import InvalidRequest, ProviderNotConfigured
from outwait.worker.net.redaction import redact_all
from outwait.worker.providers.contract import Operation, Provider, ProviderSettings, WebhookAnswer
from outwait.worker.providers.elevateai import ElevateAI
from outwait.worker.providers.ringcentral import RingCentral
from outwait.worker.providers.unless import Unless

PROVIDERS: Mapping[str, type[Provider]] = {
    "elevateai": ElevateAI,
    "ringcentral": RingCentral,
    "unless": Unless,
}
"""All providers, one line each."""

PROBLEMS_SHOWN = 10
"""Wrong values of one request that are described: it may have a hundred thousand."""

PROBLEM_SHOWN = 500
"""Characters of each description: a name may be as long as the request."""


STAND_IN = "not-in-this-process"
"""Takes the place of credentials where only other settings of a provider are used."""


class Registry:
    """The providers of one process. `build` makes it from the settings.

    Args:
        settings: the settings of each provider; stand-ins take the place of credentials that this process lacks.
        missing: the missing variables of each provider that is not configured.
    """

    def __init__(self, settings: Mapping[str, ProviderSettings], missing: Mapping[str, list[str]]) -> None:
        self._settings = settings
        self._missing = missing
        self._readers = {name: PROVIDERS[name](fields) for name, fields in settings.items()}
        self._providers = {name: reader for name, reader in self._readers.items() if name not in missing}
        self._operations = {name: _adjusted(kind, settings.get(name)) for name, kind in PROVIDERS.items()}

    @property
    def providers(self) -> Mapping[str, Provider]:
        """The configured providers, by name."""
        return MappingProxyType(self._providers)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all providers, configured or not."""
        return tuple(self._operations)

    def get(self, name: str) -> Provider:
        """A provider. Raises ProviderNotConfigured, or InvalidRequest if no provider has this name."""
        provider = self._providers.get(name)
        if provider is None:
            self._known(name)
            raise ProviderNotConfigured(f"provider {name} is not configured: set {', '.join(self._missing[name])}")
        return provider

    def read_webhook(self, name: str, body: bytes) -> WebhookAnswer:
        """What a webhook says; no credentials are needed for that. Raises as `get` and the provider's own reader do."""
        return (self._readers.get(name) or self.get(name)).read_webhook(body)

    def limits(self, name: str) -> ProviderSettings:
        """The common settings of a provider, configured or not. Raises InvalidRequest."""
        self._known(name)
        defaults: Any = PROVIDERS[name].settings_model
        return self._settings.get(name) or defaults.model_construct()

    def operation(self, provider: str, operation: str) -> Operation:
        """An operation, with the times of the settings. Raises InvalidRequest."""
        operations = self._known(provider)
        if operation not in operations:
            known = ", ".join(operations)
            raise InvalidRequest(f"operation: given {operation!r:.80}; the operations of {provider} are {known}")
        return operations[operation]

    def longest_interval(self, provider: str) -> float:
        """The longest polling interval of the provider's operations, in seconds. Raises InvalidRequest."""
        return max(operation.poll_every for operation in self._known(provider).values())

    def validate(self, provider: str, operation: str, params: Mapping[str, Any]) -> BaseModel:
        """The parameters of a job as the operation's model. Raises InvalidRequest, naming each invalid parameter."""
        model = self.operation(provider, operation).params
        try:
            return model.model_validate(params)
        except ValidationError as error:
            raise InvalidRequest(describe(error, model, "params")) from error

    def _known(self, provider: str) -> dict[str, Operation]:
        operations = self._operations.get(provider)
        if operations is None:
            known = ", ".join(self._operations)
            raise InvalidRequest(f"provider: given {provider!r:.80}; the providers are {known}")
        return operations


def build(raw: Mapping[str, Mapping[str, Any]]) -> Registry:
    """Make the registry from the settings `OUTWAIT_PROVIDERS__<NAME>__…`.

    A provider without credentials is in it too, so that its jobs can be validated, but `get` refuses it.

    Raises:
        ConfigError: an unknown provider or an invalid value; one line for each.
    """
    problems = [_unknown(name) for name in raw if name not in PROVIDERS]
    settings: dict[str, ProviderSettings] = {}
    missing: dict[str, list[str]] = {}
    for name, kind in PROVIDERS.items():
        prefix = variable("providers", name) + "__"
        try:
            settings[name] = kind.settings_model.model_validate(raw.get(name, {}))
        except ValidationError as error:
            lacking = [str(item["loc"][0]) for item in error.errors() if item["type"] == "missing"]
            missing[name] = [variable(field, prefix=prefix) for field in lacking]
            if len(lacking) < error.error_count():
                problems.append(explain(error, prefix, kind.settings_model))
            elif stand_in := _without_credentials(kind, raw.get(name, {}), lacking):
                settings[name] = stand_in
    if problems:
        raise ConfigError("\n".join(problems))
    return Registry(settings, missing)


def _without_credentials(
    kind: type[Provider], given: Mapping[str, Any], lacking: Iterable[str]
) -> ProviderSettings | None:
    """What a process that sends nothing obeys all the same: limits, times, trust in webhooks."""
    try:
        return kind.settings_model.model_validate({**given, **dict.fromkeys(lacking, STAND_IN)})
    except ValidationError:  # what is missing is no text
        return None


def _unknown(name: str) -> str:
    return f"{PREFIX}PROVIDERS__{name.upper()}: there is no such provider; the providers are {', '.join(PROVIDERS)}"


def _adjusted(kind: type[Provider], settings: ProviderSettings | None) -> dict[str, Operation]:
    if settings is None:
        return dict(kind.operations)
    return {name: _with(operation, settings) for name, operation in kind.operations.items()}


def _with(operation: Operation, settings: ProviderSettings) -> Operation:
    if settings.poll_every is not None:
        sooner = min(operation.first_poll, settings.poll_every)
        operation = replace(operation, poll_every=settings.poll_every, first_poll=sooner)
    return operation if settings.deadline is None else replace(operation, deadline=settings.deadline)


def describe(error: ValidationError, model: type[BaseModel], *at: str) -> str:
    """What is wrong with each value of a request; `at` is the path to the model."""
    problems = error.errors(include_url=False)
    shown = [cut(_problem(problem, model, at), PROBLEM_SHOWN) for problem in problems[:PROBLEMS_SHOWN]]
    more = len(problems) - len(shown)
    return "; ".join([*shown, f"and {more} more"] if more else shown)


def _problem(problem: Any, model: type[BaseModel], at: tuple[str, ...]) -> str:
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in (*at, *problem["loc"]))[1:]
    if problem["type"] == "missing":
        return f"{where}: is missing"
    if problem["type"] == "extra_forbidden":
        known = f"; the parameters are {', '.join(model.model_fields)}" if len(problem["loc"]) == 1 else ""
        return f"{where}: there is no such parameter{known}"
    given = repr(redact_all(problem["input"]))
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return f"{where or 'request'}: given {given:.80}; {reason}"
