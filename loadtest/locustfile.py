"""Locust: people who pay each other, each request with a key, each answer checked.

locust --locustfile loadtest/locustfile.py --host http://localhost
"""

import random
from collections import deque
from typing import Any
from uuid import uuid4

from locust import FastHttpUser, between, task

_START_MINOR = 1_000_000
# Whom a new shopper can pay: the wallets that others in this process have made.
_WALLETS: deque[str] = deque(maxlen=10_000)


class Shopper(FastHttpUser):
    """Has a wallet, pays small amounts to others, and looks at the balance now and then."""

    wait_time = between(0.1, 1.0)
    wallet_id = ""

    def on_start(self) -> None:
        """Open a wallet with some money in it."""
        user = self._create("/users", {"name": "Locust"})
        wallet = {"user_id": user["id"], "currency": "USD", "initial_balance": _START_MINOR}
        self.wallet_id = self._create("/wallets", wallet)["id"]
        _WALLETS.append(self.wallet_id)

    @task(5)
    def pay(self) -> None:
        """A transfer; to be refused for want of money is no failure."""
        other = random.choice(_WALLETS)
        if other == self.wallet_id:
            return
        body = {
            "source_wallet_id": self.wallet_id,
            "destination_wallet_id": other,
            "amount": random.randint(1, 5_000),
            "currency": "USD",
        }
        with self.client.post(
            "/transfers",
            json=body,
            headers={"Idempotency-Key": str(uuid4())},
            catch_response=True,
            name="POST /transfers",
        ) as response:
            answer: dict[str, Any] = response.json() or {}
            if (
                response.status_code == 201 and answer.get("amount") == body["amount"]
            ) or answer.get("code") in {"insufficient-funds", "rate-limited", "mailbox-full"}:
                response.success()
            else:
                response.failure(f"{response.status_code}: {answer.get('code')}")

    @task(1)
    def look(self) -> None:
        """The own wallet."""
        self.client.get(f"/wallets/{self.wallet_id}", name="GET /wallets/{id}")

    def _create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        created: dict[str, Any] = self.client.post(
            path, json=body, headers={"Idempotency-Key": str(uuid4())}
        ).json()
        return created
