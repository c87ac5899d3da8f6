"""The one door to the store: edges and engine are given a `Store`, and take its parts by name."""

from functools import cached_property
from types import TracebackType
from typing import Self

from outwait.config.settings import Settings
from outwait.worker.store.access import Access
from outwait.worker.store.audit import Audit
from outwait.worker.store.connection import Connection
from outwait.worker.store.dead import DeadLetters
from outwait.worker.store.durations import Durations
from outwait.worker.store.governors import Governors
from outwait.worker.store.handlers import KnownHandlers
from outwait.worker.store.health import Health
from outwait.worker.store.inbox import Inbox
from outwait.worker.store.lanes import Lanes
from outwait.worker.store.listing import Listing
from outwait.worker.store.orphans import Orphans
from outwait.worker.store.provider_webhooks import ProviderWebhooks
from outwait.worker.store.reads import Reads
from outwait.worker.store.receivers import Receivers
from outwait.worker.store.results import ProducerResults
from outwait.worker.store.statistics import Statistics
from outwait.worker.store.streams import Streams
from outwait.worker.store.tokens import Tokens


class Store:
    """The store of one namespace, for one event loop. Each part is made when it is first asked for."""

    def __init__(self, connection: Connection) -> None:
        self.settings = connection.settings
        self.connection = connection

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """The store that the settings name. Nothing is connected before the first question; `close` it in the end."""
        return cls(Connection(settings))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of this loop."""
        await self.connection.close()

    @cached_property
    def access(self) -> Access:
        """API keys and logins."""
        return Access(self.connection)

    @cached_property
    def audit(self) -> Audit:
        """What persons did."""
        return Audit(self.connection)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """Deliveries that were given up."""
        return DeadLetters(self.connection)

    @cached_property
    def durations(self) -> Durations:
        """How long jobs took."""
        return Durations(self.connection)

    @cached_property
    def governors(self) -> Governors:
        """What each provider's limits let through."""
        return Governors(self.connection)

    @cached_property
    def handlers(self) -> KnownHandlers:
        """Which handlers the workers have."""
        return KnownHandlers(self.connection)

    @cached_property
    def health(self) -> Health:
        """Whether this Redis can be trusted."""
        return Health(self.connection)

    @cached_property
    def inbox(self) -> Inbox:
        """Producers' messages."""
        return Inbox(self.connection)

    @cached_property
    def lanes(self) -> Lanes:
        """What moves jobs."""
        return Lanes(self.connection)

    @cached_property
    def listing(self) -> Listing:
        """Jobs, page by page."""
        return Listing(self.connection)

    @cached_property
    def orphans(self) -> Orphans:
        """Answers without a job."""
        return Orphans(self.connection)

    @cached_property
    def reads(self) -> Reads:
        """What shows jobs."""
        return Reads(self.connection)

    @cached_property
    def receivers(self) -> Receivers:
        """Disabled receivers of webhooks."""
        return Receivers(self.connection)

    @cached_property
    def results(self) -> ProducerResults:
        """Where producers' `AsyncResult` looks."""
        return ProducerResults(self.connection)

    @cached_property
    def statistics(self) -> Statistics:
        """What was counted."""
        return Statistics(self.connection)

    @cached_property
    def streams(self) -> Streams:
        """Redis streams of the user's."""
        return Streams(self.connection)

    @cached_property
    def tokens(self) -> Tokens:
        """Access tokens that workers share."""
        return Tokens(self.connection)

    @cached_property
    def webhooks(self) -> ProviderWebhooks:
        """What providers posted."""
        return ProviderWebhooks(self.connection)
