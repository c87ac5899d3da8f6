"""The bare clients: the same GETs with nothing around them, in bursts of `concurrency` as Outwait's batches.

| kind    | what                                                                    |
|---------|-------------------------------------------------------------------------|
| outwait | our own transport: httpx's types over aiohttp's connections             |
| aiohttp | aiohttp.ClientSession                                                   |
| httpx   | httpx.AsyncClient                                                       |

Each answer is read and its JSON decoded, as any user must. Run by poll_cost.py, until it is told to stop.
"""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import httpx
from plain import HEADERS

from outwait.worker.net.http import Http

PATH = "/ai/async/answer?questionId="

Ask = Callable[[str], Awaitable[Any]]
"""Sends one GET and gives back the answer's JSON."""


async def outwait() -> Ask:
    http, headers = Http(body_max=1_000_000), httpx.Headers(HEADERS)

    async def ask(url: str) -> Any:
        response = await http.send(httpx.Request("GET", url, headers=headers), timeout=20)
        return json.loads(response.content)

    return ask


async def plain_aiohttp() -> Ask:
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=HEADERS)

    async def ask(url: str) -> Any:
        async with session.get(url) as response:
            return await response.json()

    return ask


async def plain_httpx() -> Ask:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(limits=limits, headers=HEADERS, timeout=20)

    async def ask(url: str) -> Any:
        return (await client.get(url)).json()

    return ask


KINDS = {"outwait": outwait, "aiohttp": plain_aiohttp, "httpx": plain_httpx}


async def go(kind: str, url: str, concurrency: int, rate: float) -> None:
    """Ask for ever. `rate` is GETs a second over all coroutines; 0: as fast as it goes."""
    ask = await KINDS[kind]()
    pause = concurrency / rate if rate else 0.0
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def poll(number: int) -> None:
        due = began
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            assert (await ask(f"{url}{PATH}c-{number}"))["status"] == "PENDING"
            due = max(due + pause, loop.time())

    await asyncio.gather(*(poll(number) for number in range(concurrency)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=[*KINDS])
    parser.add_argument("url")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0, help="GETs a second; 0: as fast as it goes")
    options = parser.parse_args()
    asyncio.run(go(options.kind, options.url, options.concurrency, options.rate))
