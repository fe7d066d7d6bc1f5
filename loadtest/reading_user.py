"""The reads of all personas, and the check that no answer is older than an earlier one."""

from typing import Any

from loadtest.checked_user import CheckedUser
from loadtest.proof.answers import Answer
from loadtest.proof.complaints import statement_complaint, wallet_complaint
from loadtest.proof.violations import STALE_READ, WRONG_ANSWER


class ReadingUser(CheckedUser):
    """Abstract: a user that reads, and reports answers that are older than earlier ones."""

    abstract = True

    def read_wallet(self, wallet_id: str, *, etag: str = "", min_version: bool = False) -> str:
        """GET a wallet; returns its ETag."""
        floor = self.history.version_of(wallet_id)
        path = f"/wallets/{wallet_id}"
        if min_version and floor >= 0:
            path += f"?min_version={floor}"

        def judge(answer: Answer) -> tuple[str, str | None]:
            name = "/wallets/{id}" + ("?min_version" if min_version else "")
            if answer.status == 304:
                version = int(etag.strip('"w'))
                if answer.headers.get("etag") not in (None, etag):
                    text = f"304 for {etag} with ETag {answer.headers.get('etag')}"
                    return name, self.complain(WRONG_ANSWER, text)
                name += " (not modified)"
            elif answer.status == 200:
                complaint = wallet_complaint(wallet_id, self.world.currency, answer.body)
                version = answer.body.get("version", -1)
                found = answer.headers.get("etag")
                # While an expiry is due and not written, the wallet differs from its version.
                is_between = found is None and wallet_id in self.world.cards
                if complaint is None and not is_between and found != f'"w{version}"':
                    complaint = f"version {version} has ETag {found}"
                if complaint is not None:
                    return name, self.complain(WRONG_ANSWER, complaint)
            else:
                return name, self.unexpected(answer) or f"{answer.status}"
            if version < floor and (min_version or not self.session.options.allow_stale):
                text = f"wallet {wallet_id}: version {version}, and {floor} was answered before"
                return name, self.complain(STALE_READ, text)
            self.history.saw(wallet_id, version)
            return name, None

        answer = self.send("GET", path, judge, headers={"If-None-Match": etag} if etag else None)
        return answer.headers.get("etag", "")

    def read_statement(self, wallet_id: str, limit: int = 50) -> None:
        """GET a page of a statement. It comes from PostgreSQL, so it is never stale."""
        floor = self.history.version_of(wallet_id)

        def judge(answer: Answer) -> tuple[str, str | None]:
            name = "/wallets/{id}/statement"
            if answer.status != 200:
                return name, self.unexpected(answer) or f"{answer.status}"
            entries: list[dict[str, Any]] = answer.body.get("data", [])
            complaint = statement_complaint(entries)
            if complaint is not None:
                return name, self.complain(WRONG_ANSWER, f"wallet {wallet_id}: {complaint}")
            newest = entries[0]["version"] if entries else 0
            if newest < floor:
                text = f"statement of {wallet_id} ends at {newest}, and {floor} was answered before"
                return name, self.complain(STALE_READ, text)
            self.history.saw(wallet_id, newest)
            return name, None

        self.send("GET", f"/wallets/{wallet_id}/statement?limit={limit}", judge)
