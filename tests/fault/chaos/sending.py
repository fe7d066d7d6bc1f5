"""Sends the requests of the load."""

import orjson

from loadtest.proof.record import Kind, Operation
from tests.fault.chaos.batch_requests import reply_about_batch
from tests.fault.chaos.hold_requests import reply_about_hold, text_of
from tests.support.api import Api, Reply


async def reply_to(api: Api, operation: Operation) -> Reply:
    """Send a request of any kind."""
    wallet = f"/wallets/{operation.wallet}"
    match operation.kind:
        case Kind.TRANSFER:
            return await api.transfer(
                operation.source, operation.destination, operation.amount, key=operation.key
            )
        case Kind.REVERSAL:
            path = f"/transfers/{operation.original}/reversal"
            return await api.post(path, {"amount": operation.amount}, key=operation.key)
        case Kind.READ:
            query = "" if operation.min_version is None else f"?min_version={operation.min_version}"
            return await api.get(f"{wallet}{query}")
        case Kind.INSTANT:
            return await api.get(f"{wallet}?at={text_of(operation.until_us)}")
        case Kind.BATCH:
            return await reply_about_batch(api, operation)
        case Kind.FREEZE | Kind.UNFREEZE:
            return await api.post(f"{wallet}/{operation.kind.value}", key=operation.key)
        case Kind.WINDOW:
            since, until = text_of(operation.since_us), text_of(operation.until_us)
            return await _pages(api, f"{wallet}/statement?limit=200&from={since}&to={until}")
        case _:
            return await reply_about_hold(api, operation)


async def _pages(api: Api, path: str) -> Reply:
    """All pages of a window as one answer, or the first answer that is not 200."""
    data: list[object] = []
    cursor = ""
    while True:
        reply = await api.get(f"{path}{cursor}")
        if reply.status != 200:
            return reply
        data += reply.json["data"]
        if not reply.json["has_more"]:
            return Reply(200, reply.headers, orjson.dumps({"data": data}))
        cursor = f"&cursor={reply.json['next_cursor']}"
