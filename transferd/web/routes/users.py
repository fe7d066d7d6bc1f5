"""Users."""

from transferd.domain.user import CreateUser
from transferd.ledger.store import users as store
from transferd.web import cursors, schemas
from transferd.web.calls import Call
from transferd.web.fields import is_id, metadata_text
from transferd.web.fingerprints import fingerprint_of, metadata_part
from transferd.web.operations import BY_ID, Operation, answered, listed, shown
from transferd.web.problems import Problem
from transferd.web.rendering import user_view
from transferd.web.replies import Reply

_LIST = "users"


async def create(call: Call) -> Reply:
    """POST /users."""
    body = await call.body(schemas.NewUser)
    key = call.key(required=False)
    metadata = metadata_text(body.metadata)
    command = CreateUser(call.new_id(), body.name, metadata)
    answer = await call.ask(
        command,
        key=key,
        fingerprint=fingerprint_of("users", body.name, metadata_part(body.metadata, metadata)),
    )
    return answered(answer, location="/users/")


async def read(call: Call) -> Reply:
    """GET /users/{id}."""
    user = await store.read_user(call.ledger.database, _id(call))
    if user is None:
        raise _not_found(call)
    return shown(call.context.rendering.user(user))


async def list_(call: Call) -> Reply:
    """GET /users."""
    query = call.query(schemas.ListQuery)
    scope = cursors.scope_of(call.principal.ledger, _LIST, query)
    before_id = cursors.decode_id(scope, query.cursor)
    users = await store.list_users(call.ledger.database, before_id=before_id, limit=query.limit + 1)
    items = [user_view(user) for user in users]
    return listed(call, scope, query.limit, items, [user.id for user in users])


async def update(call: Call) -> Reply:
    """PATCH /users/{id}."""
    id = _id(call)
    body = await call.body(schemas.UserPatch)
    given = body.model_fields_set
    user = await store.update_user(
        call.ledger.database,
        id,
        name=(body.name,) if "name" in given else None,
        metadata=metadata_text(body.metadata) if "metadata" in given else None,
    )
    if user is None:
        raise _not_found(call)
    return shown(call.context.rendering.user(user))


def _id(call: Call) -> str:
    id = call.path["id"].lower()
    if not is_id(id):
        raise _not_found(call)
    return id


def _not_found(call: Call) -> Problem:
    return Problem("user-not-found", f"There is no user {call.path['id']}.")


OPERATIONS = (
    Operation(
        "POST",
        "/users",
        "create_user",
        create,
        "Create a user",
        schemas.User,
        "users",
        scope="wallets:write",
        status=201,
        body=schemas.NewUser,
        key="optional",
    ),
    Operation(
        "GET",
        "/users",
        "list_users",
        list_,
        "List users, newest first",
        schemas.User,
        "users",
        scope="wallets:read",
        query=schemas.ListQuery,
        is_list=True,
        description=f"{BY_ID} The events `user.created`, from a webhook or the exchange, miss"
        " none.",
    ),
    Operation(
        "GET",
        "/users/{id}",
        "read_user",
        read,
        "Read a user",
        schemas.User,
        "users",
        scope="wallets:read",
        refusals=("user-not-found",),
    ),
    Operation(
        "PATCH",
        "/users/{id}",
        "update_user",
        update,
        "Change a user's name or metadata",
        schemas.User,
        "users",
        scope="wallets:write",
        body=schemas.UserPatch,
        refusals=("user-not-found",),
    ),
)
