"""Webhooks: where events are sent to, what became of each, and sending one again."""

import base64
import secrets

import orjson

from transferd.commit.answer import Answer
from transferd.domain.api_key import Scope
from transferd.domain.times import rfc3339
from transferd.domain.webhook import Webhook, WebhookStatus, url_fault
from transferd.ledger.store import deliveries as log
from transferd.ledger.store import webhooks as store
from transferd.ledger.store.database import Transaction
from transferd.ledger.store.outbox import insert_outbox
from transferd.ledger.store.wallets import read_wallets
from transferd.web import cursors, schemas, webhook_schemas
from transferd.web.calls import Call, invalid
from transferd.web.changes import change_once
from transferd.web.fields import is_id
from transferd.web.fingerprints import fingerprint_of
from transferd.web.operations import BY_ID, Operation, answered, listed, shown
from transferd.web.problems import Problem
from transferd.web.rendering import delivery_view, webhook_view
from transferd.web.replies import Reply

_LIST = "webhooks"
_DELIVERIES = "deliveries"
_SECRET_BYTES = 32
# The reason if a client disables an endpoint; a notifier gives its own reasons.
_BY_A_CLIENT = "a client asked for it"


async def create(call: Call) -> Reply:
    """POST /webhooks."""
    body = await call.body(webhook_schemas.NewWebhook)
    _check_url(call, body.url)
    key = call.key(required=False)

    async def change(transaction: Transaction) -> Answer:
        if body.wallet_id is not None and not await read_wallets(transaction, [body.wallet_id]):
            raise Problem("wallet-not-found", f"There is no wallet {body.wallet_id}.")
        webhook = await store.insert_webhook(
            transaction,
            id=call.new_id(),
            client_id=call.principal.client_id,
            url=body.url,
            events=body.events,
            wallet_id=body.wallet_id,
            secret=_new_secret(),
        )
        return _with_secret(webhook, 201)

    fingerprint = fingerprint_of("webhooks", body.url, body.events, body.wallet_id)
    answer = await change_once(call, change, key=key, fingerprint=fingerprint)
    return answered(answer, location="/webhooks/")


async def list_(call: Call) -> Reply:
    """GET /webhooks."""
    query = call.query(schemas.ListQuery)
    scope = cursors.scope_of(call.principal.ledger, _LIST, query)
    webhooks = await store.list_webhooks(
        call.ledger.database,
        before_id=cursors.decode_id(scope, query.cursor),
        limit=query.limit + 1,
    )
    items = [webhook_view(webhook) for webhook in webhooks]
    return listed(call, scope, query.limit, items, [webhook.id for webhook in webhooks])


async def read(call: Call) -> Reply:
    """GET /webhooks/{id}."""
    webhook = _found(call, await store.read_webhook(call.ledger.database, _id(call)))
    return shown(orjson.dumps(webhook_view(webhook)))


async def update(call: Call) -> Reply:
    """PATCH /webhooks/{id}."""
    id = _id(call)
    body = await call.body(webhook_schemas.WebhookPatch)
    given = body.model_fields_set
    if "url" in given:
        _check_url(call, body.url)

    async def change(transaction: Transaction) -> Answer:
        if not given:
            webhook = await store.read_webhook(transaction, id)
        else:
            webhook = await store.update_webhook(
                transaction,
                id,
                url=body.url if "url" in given else None,
                events=body.events if "events" in given else None,
                status=body.status if "status" in given else None,
                reason=_BY_A_CLIENT,
            )
        return Answer(200, orjson.dumps(webhook_view(_found(call, webhook))))

    return answered(await change_once(call, change))


async def delete(call: Call) -> Reply:
    """DELETE /webhooks/{id}."""
    id = _id(call)
    await call.optional_body(schemas.NoBody)

    async def change(transaction: Transaction) -> Answer:
        if not await store.delete_webhook(transaction, id):
            raise _not_found(call)
        return Answer(204, b"")

    await change_once(call, change)
    return Reply(204, media_type=None)


async def rotate(call: Call) -> Reply:
    """POST /webhooks/{id}/rotate."""
    id = _id(call)
    await call.optional_body(schemas.NoBody)
    key = call.key(required=False)

    async def change(transaction: Transaction) -> Answer:
        locked = await store.lock_webhook(transaction, id)
        if locked is None:
            raise _not_found(call)
        webhook, now = locked
        promised = webhook.promised(now)
        # Counted with the secret that signs now and the new one.
        if len(promised) + 2 > call.context.limits.webhook_secrets_max:
            free_at = min(old.until for old in promised)
            raise Problem("too-many-secrets", facts={"free_at": rfc3339(free_at)})
        webhook = await store.rotate_webhook(
            transaction,
            id,
            secret=_new_secret(),
            overlap_s=call.context.limits.webhook_secret_overlap_s,
            promised=promised,
        )
        return _with_secret(webhook, 200)

    fingerprint = fingerprint_of("rotate", id)
    return answered(await change_once(call, change, key=key, fingerprint=fingerprint))


async def deliveries(call: Call) -> Reply:
    """GET /webhooks/{id}/deliveries."""
    query = call.query(webhook_schemas.DeliveriesQuery)
    id = _id(call)
    _found(call, await store.read_webhook(call.ledger.database, id))
    scope = cursors.scope_of(call.principal.ledger, _DELIVERIES, query, id)
    found = await log.list_deliveries(
        call.ledger.database,
        id,
        status=query.status,
        before_id=cursors.decode_id(scope, query.cursor),
        limit=query.limit + 1,
    )
    items = [delivery_view(delivery) for delivery in found]
    return listed(call, scope, query.limit, items, [delivery.id for delivery in found])


async def redeliver(call: Call) -> Reply:
    """POST /webhooks/{id}/deliveries/{delivery_id}/redeliver."""
    id = _id(call)
    delivery_id = call.path["delivery_id"].lower()
    await call.optional_body(schemas.NoBody)
    key = call.key(required=False)

    async def change(transaction: Transaction) -> Answer:
        webhook = _found(call, await store.read_webhook(transaction, id))
        if webhook.status is not WebhookStatus.ACTIVE:
            raise Problem("webhook-disabled")
        delivery = None
        if is_id(delivery_id):
            delivery = await log.ask_again(transaction, id, delivery_id)
        if delivery is None or delivery.event is None:
            raise Problem(
                "delivery-not-found", f"There is no delivery {delivery_id} to this webhook."
            )
        # The relay wakes the notifier up.
        again = {"endpoint": id, "event": orjson.Fragment(delivery.event)}
        await insert_outbox(transaction, [orjson.dumps(again)])
        return Answer(202, orjson.dumps(delivery_view(delivery)))

    fingerprint = fingerprint_of("redeliver", id, delivery_id)
    return answered(await change_once(call, change, key=key, fingerprint=fingerprint))


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _with_secret(webhook: Webhook, status: int) -> Answer:
    return Answer(status, orjson.dumps(webhook_view(webhook, secret=webhook.secret)))


def _check_url(call: Call, url: str) -> None:
    settings = call.context.settings
    fault = url_fault(
        url, allow_http=settings.webhook_allow_http, allowed=settings.webhook_networks
    )
    if fault is not None:
        raise invalid("/url", "url_invalid", fault)


def _id(call: Call) -> str:
    id = call.path["id"].lower()
    if not is_id(id):
        raise _not_found(call)
    return id


def _found(call: Call, webhook: Webhook | None) -> Webhook:
    if webhook is None:
        raise _not_found(call)
    return webhook


def _not_found(call: Call) -> Problem:
    return Problem("webhook-not-found", f"There is no webhook {call.path['id']}.")


_SCOPE: Scope = "webhooks:admin"
_TAG = "webhooks"

OPERATIONS = (
    Operation(
        "POST",
        "/webhooks",
        "create_webhook",
        create,
        "Have events sent to an address; the answer has the secret that signs them",
        webhook_schemas.WebhookWithSecret,
        _TAG,
        scope=_SCOPE,
        status=201,
        body=webhook_schemas.NewWebhook,
        key="optional",
        is_command=False,
        refusals=("wallet-not-found",),
    ),
    Operation(
        "GET",
        "/webhooks",
        "list_webhooks",
        list_,
        "List webhooks, newest first",
        webhook_schemas.Webhook,
        _TAG,
        scope=_SCOPE,
        query=schemas.ListQuery,
        is_list=True,
        description=BY_ID,
    ),
    Operation(
        "GET",
        "/webhooks/{id}",
        "read_webhook",
        read,
        "Read a webhook",
        webhook_schemas.Webhook,
        _TAG,
        scope=_SCOPE,
        refusals=("webhook-not-found",),
    ),
    Operation(
        "PATCH",
        "/webhooks/{id}",
        "update_webhook",
        update,
        "Change a webhook's address or events, disable it, or make it active again",
        webhook_schemas.Webhook,
        _TAG,
        scope=_SCOPE,
        body=webhook_schemas.WebhookPatch,
        is_command=False,
        refusals=("webhook-not-found",),
    ),
    Operation(
        "DELETE",
        "/webhooks/{id}",
        "delete_webhook",
        delete,
        "Delete a webhook with its delivery log",
        None,
        _TAG,
        scope=_SCOPE,
        status=204,
        is_command=False,
        refusals=("webhook-not-found",),
    ),
    Operation(
        "POST",
        "/webhooks/{id}/rotate",
        "rotate_webhook_secret",
        rotate,
        "Replace the secret; each old one signs beside it for a day",
        webhook_schemas.WebhookWithSecret,
        _TAG,
        scope=_SCOPE,
        key="optional",
        is_command=False,
        refusals=("webhook-not-found", "too-many-secrets"),
    ),
    Operation(
        "GET",
        "/webhooks/{id}/deliveries",
        "list_deliveries",
        deliveries,
        "List what became of each event, newest first",
        webhook_schemas.Delivery,
        _TAG,
        scope=_SCOPE,
        query=webhook_schemas.DeliveriesQuery,
        is_list=True,
        description=f"{BY_ID} The webhook itself gets every event at least once.",
        refusals=("webhook-not-found",),
    ),
    Operation(
        "POST",
        "/webhooks/{id}/deliveries/{delivery_id}/redeliver",
        "redeliver_event",
        redeliver,
        "Send an event once more, as it was",
        webhook_schemas.Delivery,
        _TAG,
        scope=_SCOPE,
        status=202,
        key="optional",
        is_command=False,
        refusals=("webhook-not-found", "delivery-not-found", "webhook-disabled"),
    ),
)
