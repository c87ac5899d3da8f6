"""The sandbox's own routes: orders, reset, ledger."""

from collections.abc import Sequence

import msgspec
from aiohttp import web

from outwait.sandbox.behaviour import BadOrder
from outwait.sandbox.vendor import State, Vendor, answer


class Control:
    """Orders and the ledger over HTTP."""

    def __init__(self, state: State, vendors: Sequence[Vendor]) -> None:
        self._state = state
        self._vendors = vendors
        self._names = [vendor.name for vendor in vendors]

    def routes(self) -> list[web.RouteDef]:
        """`/_control/…` and `/_ledger…`."""
        return [
            web.get("/_control/behaviour", self.behaviours),
            web.post("/_control/behaviour", self.behave),
            web.post("/_control/reset", self.reset),
            web.get("/_ledger", self.ledger),
            web.get("/_ledger/totals", self.totals),
        ]

    async def behaviours(self, _: web.Request) -> web.Response:
        """The behaviour that is ordered for each provider."""
        orders = self._state.orders
        return answer({name: orders.behaviour(name).model_dump(mode="json") for name in self._names})

    async def behave(self, request: web.Request) -> web.Response:
        """Order the behaviour of one provider (`provider`) or of all; fields that are not given get their defaults."""
        try:
            order = msgspec.json.decode(await request.read(), type=dict)
            provider = order.pop("provider", None)
            if provider is not None and provider not in self._names:
                raise BadOrder(f"provider: given {provider!r}, must be one of {', '.join(self._names)}")
            self._state.orders.give(provider, order)
        except (msgspec.DecodeError, BadOrder) as error:
            return answer({"error": str(error)}, 400)
        return await self.behaviours(request)

    async def reset(self, _: web.Request) -> web.Response:
        """Forget everything: jobs, orders, tokens, penalties, counts."""
        self._state.reset()
        for vendor in self._vendors:
            vendor.reset()
        return answer({})

    async def ledger(self, request: web.Request) -> web.Response:
        """Totals and jobs. `?text=` selects the jobs whose text contains it, `?id=` the job with this id."""
        query, ledger = request.query, self._state.ledger
        if "id" in query:
            jobs = [ledger.jobs[query["id"]]] if query["id"] in ledger.jobs else []
        else:
            jobs = [job for job in ledger.jobs.values() if query.get("text", "") in job.text]
        return answer({"totals": ledger.summary(), "jobs": [job.entry() for job in jobs]})

    async def totals(self, _: web.Request) -> web.Response:
        """Only the totals: cheap, however many jobs there are."""
        return answer(self._state.ledger.summary())
