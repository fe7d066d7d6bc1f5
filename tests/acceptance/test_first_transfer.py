"""The main job, from the outside."""

from tests.support.api import Api


async def test_a_transfer_moves_money(api: Api) -> None:
    ada = await api.wallet(10_000)
    bob = await api.wallet()
    reply = await api.transfer(ada, bob, 2_500, key="lunch", reference="lunch", metadata={"n": 1})
    assert reply.status == 201
    assert reply.json["source_balance_after"] == 7_500
    assert reply.headers["Location"] == f"/transfers/{reply.json['id']}"
    assert await api.balance(ada) == 7_500
    assert await api.balance(bob) == 2_500


async def test_the_same_key_has_one_effect(api: Api) -> None:
    ada = await api.wallet(10_000)
    bob = await api.wallet()
    first = await api.transfer(ada, bob, 2_500, key="lunch")
    second = await api.transfer(ada, bob, 2_500, key='"lunch"')
    assert (second.status, second.body) == (first.status, first.body)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert await api.balance(ada) == 7_500
    other = await api.transfer(ada, bob, 1, key="lunch")
    assert other.code == "idempotency-key-reused"
