"""What persons did: who, what, when and from where. Pure data; the store keeps it apart from the timelines of jobs."""

import re
from enum import StrEnum

import msgspec

from outwait.config.masking import cut, scrubbed

TEXT_LIMIT = 300
"""Characters of a reason or a filter that are kept."""


class Via(StrEnum):
    """The way in which a person acted."""

    HTTP = "http"
    PAGE = "page"
    COMMAND = "command line"
    CLIENT = "client"  # a program with access to Redis


class ActKind(StrEnum):
    """What a person did."""

    CANCEL = "cancel"
    RESOLVE = "resolve"
    REPOLL = "repoll"
    REPLAY = "replay"
    REPLAY_WEBHOOKS = "replay-webhooks"
    PAUSE = "pause"
    RESUME = "resume"
    ENABLE_RECEIVER = "enable-receiver"
    CREATE_KEY = "create-key"
    ROTATE_KEY = "rotate-key"
    REVOKE_KEY = "revoke-key"
    LOGIN = "login"
    LOGIN_REFUSED = "login-refused"


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One act of a person.

    Args:
        at: seconds since 1970 by Redis's clock.
        what: was done.
        who: the name of an API key, or of the user of the system.
        key: the API key's id, if it was one.
        via: the way.
        address: from where, as far as it is known.
        about: what it was done to, if it was no job: a provider, a key, a receiver.
        detail: the reason, the decision, the filters.
        job: the job that it was done to.
        tenant: of that job; of an act about no job, the tenant of the API key.
        key_tenant: the tenant that the API key is limited to.
    """

    what: ActKind
    who: str
    via: Via
    at: float = 0.0
    key: str = ""
    address: str = ""
    about: str = ""
    detail: str = ""
    job: str = ""
    tenant: str = ""
    key_tenant: str = ""


class NewAct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An act as the store's scripts write it: the list that it goes to, and its JSON."""

    trail: str
    record: str
    tenant: str = ""


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """A person who acts, as `Act` has it."""

    who: str
    via: Via
    key: str = ""
    address: str = ""
    key_tenant: str = ""

    @property
    def words(self) -> str:
        """Who it is, for people."""
        means = f"key {self.key}" if self.key else str(self.via)
        return f"{self.who} ({means}{f', {self.address}' if self.address else ''})"

    def act(self, what: ActKind, *, about: str = "", detail: str = "") -> NewAct:
        """One act, ready to be stored; what it changes says the job."""
        act = Act(
            what=what,
            who=self.who,
            via=self.via,
            key=self.key,
            address=self.address,
            about=_short(about),
            detail=_short(detail),
            key_tenant=self.key_tenant,
        )
        return NewAct(trail=self._trail(what), record=msgspec.json.encode(act).decode(), tenant=self.key_tenant)

    def _trail(self, what: ActKind) -> str:
        """Nobody pushes out the acts of somebody else: strangers and each tenant have trails of their own."""
        if what is ActKind.LOGIN_REFUSED:
            return STRANGERS
        return f"{OF_TENANT}{self.key_tenant}" if self.key_tenant else OPERATORS


OPERATORS, STRANGERS, OF_TENANT = "operators", "strangers", "tenant:"
"""Names of trails; a tenant's has its name behind it."""


_PATH = re.compile(r"(https?://[^\s/?#]++)[/?#]\S*+")
"""A URL with a path or a query, either of which may be a secret."""


def _short(text: str) -> str:
    return scrubbed(_PATH.sub(r"\1/…", cut(text, TEXT_LIMIT)))
