"""The sandbox's own endpoints: orders, reset, ledger."""

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
        """What is ordered of each provider."""
        orders = self._state.orders
        return answer({name: orders.behaviour(name).model_dump(mode="json") for name in self._names})

    async def behave(self, request: web.Request) -> web.Response:
        """Order a behaviour of one provider (`provider`) or of all; what is not named is as at the start."""
        try:
            order = msgspec.json.decode(await request.read(), type=dict)
            provider = order.pop("provider", None)
            if provider is not None and provider not in self._names:
                raise BadOrder(f"provider: given {provider!r}, one of {', '.join(self._names)} is expected")
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
        """Totals and jobs; `?text=` keeps the jobs with it in their text, `?id=` the one with this id."""
        query, ledger = request.query, self._state.ledger
        if "id" in query:
            found = [ledger.jobs[query["id"]]] if query["id"] in ledger.jobs else []
        else:
            found = [job for job in ledger.jobs.values() if query.get("text", "") in job.text]
        return answer({"totals": ledger.summary(), "jobs": [job.entry() for job in found]})

    async def totals(self, _: web.Request) -> web.Response:
        """Totals alone: cheap however many jobs there are."""
        return answer(self._state.ledger.summary())
