"""How accounts are, by hand too; what is ahead of a delivery."""

from __future__ import annotations

from datetime import datetime, timedelta

import httpx2

from tests.contract.api.conftest import problem_of
from tests.contract.api.test_api import ENVELOPE, HELLO, RAW


async def test_an_account_sleeps_and_wakes(api: httpx2.AsyncClient) -> None:
    asleep = (await api.post("/v1/accounts/sandbox/sleep", json={"for": "2h"})).json()
    assert (asleep["health"], asleep["by_hand"]) == ("sleeping", True)
    assert (await api.get("/v1/accounts/sandbox")).json()["circuit"] == asleep
    assert (await api.get("/v1/accounts")).json()["accounts"][0]["circuit"] == asleep
    awake = (await api.post("/v1/accounts/SANDBOX/wake")).json()
    assert (awake["health"], awake["until"], awake["reason"]) == ("healthy", None, "")
    bad = await api.post("/v1/accounts/sandbox/sleep", json={"for": "400d"})
    assert [field for field, _, _ in await problem_of(bad, 422)] == ["for"]
    await problem_of(await api.post("/v1/accounts/nobody/wake"), 404)


async def test_what_is_ahead_of_a_delivery_is_shown(api: httpx2.AsyncClient) -> None:
    await api.post("/v1/accounts/sandbox/sleep", json={"for": "2h"})
    own = {"retry_schedule": "7m", "retry_window": "3h", "give_up": "5h"}
    response = await api.post("/v1/messages", params=ENVELOPE | own, content=HELLO, headers=RAW)
    path = f"/v1/messages/{response.json()['id']}"
    (row,) = (await api.get(path)).json()["deliveries"]
    accepted = datetime.fromisoformat(row["accepted"])
    assert datetime.fromisoformat(row["window_ends"]) - accepted == timedelta(hours=3)
    assert datetime.fromisoformat(row["gives_up"]) - accepted == timedelta(hours=5)
    assert (row["next_try"], row["stands_still"]) == (None, False)
    (why,) = (await api.get(f"{path}/why")).json()["deliveries"]
    names = ("next_try", "window_ends", "gives_up", "stands_still")
    assert [why[name] for name in names] == [row[name] for name in names]
    await api.patch("/v1/accounts/sandbox", json={"enabled": False})
    (why,) = (await api.get(f"{path}/why")).json()["deliveries"]
    assert (why["stands_still"], why["window_ends"]) == (True, None)
    assert why["window_left"][-1] in "hms"


async def test_bad_rules_of_retrying_are_named_and_nothing_is_kept(api: httpx2.AsyncClient) -> None:
    own = {"retry_schedule": "soon", "retry_window": "2", "give_up": "1h"}
    response = await api.post("/v1/messages", params=ENVELOPE | own, content=HELLO, headers=RAW)
    assert [field for field, _, _ in await problem_of(response, 422)] == ["retry_schedule", "retry_window"]
    assert (await api.get("/v1/deliveries")).json()["deliveries"] == []
