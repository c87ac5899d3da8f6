"""Ends TLS and carries the bytes on to a plain server; who shows no certificate of the known client is not let in.

Run as a process: `tls_proxy.py PORT TO SERVER_PEM SERVER_KEY CLIENT_PEM`; prints a line when it listens.
"""

import asyncio
import contextlib
import ssl
import sys


async def serve(port: int, to: int, certificate: str, key: str, client: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(copy(reader, back), copy(there, writer))

    async with await asyncio.start_server(carry, "127.0.0.1", port, ssl=context) as server:
        print("listens", flush=True)  # noqa: T201 - to the test
        await server.serve_forever()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
