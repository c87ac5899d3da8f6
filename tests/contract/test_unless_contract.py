from typing import Any, ClassVar

from aiohttp import web
from aiohttp.test_utils import TestServer

from outwait.sandbox.behaviour import Outcome
from outwait.worker.providers.contract import Failed, Succeeded
from tests.contract.provider_contract import ProviderContract, Start, web_app


class TestUnless(ProviderContract):
    name = "unless"
    operation = "query"
    params: ClassVar[dict[str, Any]] = {"query": "What is it?", "sessionId": "s-1", "visitorId": "v-1"}
    wrong: ClassVar[dict[str, Any]] = {"api_key": "wrong"}

    async def test_the_answer_is_the_last_message_of_the_bot(self, start: Start) -> None:
        world = await start()
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Succeeded)
        last = [item for item in answer.result["chatData"]["history"] if item["sender"] == "bot"][-1]
        assert answer.result["answer"] == last["message"]

    async def test_the_error_is_told(self, start: Start) -> None:
        world = await start(behaviour={"outcome": Outcome.FAILURE})
        answer = await world.finish(await world.submit())
        assert isinstance(answer, Failed)
        assert answer.message.startswith("Timeout processing query")

    async def test_both_calls_carry_all_four_headers(self, start: Start) -> None:
        world = await start()
        seen: list[dict[str, str | None]] = []

        async def note(request: web.Request) -> web.Response:
            names = ("x-api-key", "x-user-email", "x-account-id", "x-website-id")
            seen.append({name: request.headers.get(name) for name in names})
            return web.json_response({"questionId": "q", "status": "PENDING"})

        server = TestServer(web_app(web.route("*", "/api/{path:.*}", note)))
        await server.start_server()
        registry = world.registry(base_url=str(server.make_url("/api/")))
        await world.poll(await world.submit(registry), registry)
        await server.close()
        assert seen[0] == seen[1]
        assert all(seen[0].values())
