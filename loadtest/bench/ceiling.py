"""The ceiling: an aiohttp server that reads a request and answers `{}`, on TRANSFERD_PORT."""

import asyncio
import os

import uvloop
from aiohttp import web


async def _answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b"{}", content_type="application/json")


async def serve(application: web.Application) -> None:
    """Serve on TRANSFERD_PORT until killed."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["TRANSFERD_PORT"])).start()
    await asyncio.Event().wait()


async def main() -> None:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", _answer)
    await serve(application)


if __name__ == "__main__":
    uvloop.run(main())
