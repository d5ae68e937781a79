"""`/v1/accounts`: the ordered list of accounts. Secrets are taken and never given back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from ..errors import Fault, InvalidInput
from ..gateway import ACCOUNT_DEFAULTS, ACCOUNT_FIELDS, APPLICATION_DEFAULTS, APPLICATION_FIELDS
from ..model.account import KeyKind
from ..model.application import ALL_ACCOUNTS
from ..model.quantity import QuantityFault, parse_duration
from .parts import TheGateway, to_json
from .schema import fields_schema

#: An account that shall sleep for longer is better switched off.
LONGEST_SLEEP = timedelta(days=365)

routes = APIRouter(prefix="/v1/accounts", tags=["accounts"])

_SCHEMA = fields_schema(ACCOUNT_FIELDS, ACCOUNT_DEFAULTS)
_APPLICATION_SCHEMA = fields_schema(APPLICATION_FIELDS, APPLICATION_DEFAULTS)
_APPLICATION_SCHEMA["properties"]["password"] = {
    "type": "string", "writeOnly": True, "description": "its own, in place of a generated one"
}  # fmt: skip

Fields = Annotated[dict[str, Any], Body(description="fields of an account by name"), WithJsonSchema(_SCHEMA)]


class Move(BaseModel):
    """Where an account goes in the list."""

    model_config = ConfigDict(extra="forbid")

    position: int = Field(ge=0, description="0 is the top")


class Grant(BaseModel):
    """An application that may use the account, and whom it may send as from now on."""

    model_config = ConfigDict(extra="forbid")

    application: str
    senders: list[str] = Field(default_factory=list)


class NewAccount(BaseModel):
    """The fields of an account by name, and at will the application that may use it."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra=lambda schema: schema["properties"].update(_SCHEMA["properties"])
    )

    grant: Grant | None = None


class NewKeys(BaseModel):
    """DKIM keys to make: the domain that signs, and the selector under which DNS will have the public key."""

    model_config = ConfigDict(extra="forbid")

    domain: str = Field(min_length=1)
    selector: str = Field(min_length=1, description="of two keys, the Ed25519 key gets it with -ed25519 behind it")
    key: KeyKind = Field(KeyKind.RSA, description="rsa (2048 bits), ed25519 or both")


class Sleep(BaseModel):
    """How long an account sleeps."""

    model_config = ConfigDict(extra="forbid")

    duration: str = Field("1h", alias="for", description="as in 30m, 2h or 1d")


def _shown(gateway: TheGateway, account: Any, consents: Mapping[int, Any]) -> dict[str, Any]:
    own = {"circuit": gateway.answers.circuit(account), "authorization": consents.get(account.id)}
    return gateway.accounts.show(account) | {name: to_json(value) for name, value in own.items()}


@routes.get("")
async def list_accounts(gateway: TheGateway) -> dict[str, Any]:
    """All accounts, the topmost first, each with how it is."""
    accounts = gateway.accounts.snapshot()
    consents = await gateway.consents.of_all(accounts)
    return {"accounts": [_shown(gateway, account, consents) for account in accounts]}


@routes.post("", status_code=201)
async def add_account(gateway: TheGateway, new: NewAccount) -> dict[str, Any]:
    """Add an account. With `grant`, the application named there may use it: nothing is done unless both can be."""
    fields, grant = new.model_extra or {}, new.grant
    senders: list[str] = []
    if grant is not None:
        gateway.accounts.parse_new(fields)
        senders = _senders_after(gateway, grant)
        gateway.applications.parse_edit(grant.application, {"senders": senders})
    account = await gateway.accounts.add(fields)
    if grant is not None:
        granted = gateway.applications.get(grant.application).accounts
        accounts = granted if ALL_ACCOUNTS in granted else (*granted, account.name)
        await gateway.applications.edit(grant.application, {"accounts": accounts, "senders": senders})
    return gateway.accounts.show(account)


def _senders_after(gateway: TheGateway, grant: Grant) -> list[str]:
    """Allowed senders once a real account is granted: `*` stands only if it is named (again)."""
    current = list(gateway.applications.get(grant.application).senders)
    if "*" in current:
        current = []
    senders = current + [sender for sender in grant.senders if sender not in current]
    if not senders:
        fault = f"application {grant.application!r} has no allowed senders for a real account yet"
        raise InvalidInput(Fault("allow-sender", fault, "name them, as in --allow-sender '*@example.org'"))
    return senders


class Export(BaseModel):
    """Whether secrets go along, sealed under a passphrase."""

    model_config = ConfigDict(extra="forbid")

    with_secrets: bool = False
    passphrase: str = Field("", json_schema_extra={"writeOnly": True})


@routes.post("/export")
async def export_accounts(gateway: TheGateway, order: Export) -> dict[str, Any]:
    """The list as TOML, for `/v1/accounts/import` here or elsewhere; secrets only when asked for, and sealed."""
    if order.passphrase and not order.with_secrets:
        raise InvalidInput(Fault("passphrase", "goes with with_secrets", "set with_secrets, or leave it out"))
    return {"toml": await gateway.accounts.export(order.passphrase if order.with_secrets else None)}


class Import(BaseModel):
    """A file of accounts, and the passphrase of the secrets in it."""

    model_config = ConfigDict(extra="forbid")

    toml: str
    passphrase: str = Field("", json_schema_extra={"writeOnly": True})
    dry_run: bool = Field(False, description="change nothing, say what would change")


@routes.post("/import")
async def import_accounts(gateway: TheGateway, given: Import) -> dict[str, Any]:
    """Make the accounts of a file as it says, all of them or none; accounts that it does not name stay as they are."""
    plan = await gateway.accounts.import_(given.toml, given.passphrase, dry_run=given.dry_run)
    changes = [
        {
            "account": change.account,
            "action": change.action,
            "fields": [{"field": field, "before": before, "after": after} for field, before, after in change.fields],
        }
        for change in plan.changes
    ]
    return {"dry_run": given.dry_run, "changes": changes, "order": list(plan.order)}


class Together(BaseModel):
    """Accounts, and the applications that use them, each as its fields by name; an application may bring a password."""

    model_config = ConfigDict(extra="forbid")

    accounts: list[Annotated[dict[str, Any], WithJsonSchema(_SCHEMA)]] = Field(min_length=1)
    applications: list[Annotated[dict[str, Any], WithJsonSchema(_APPLICATION_SCHEMA)]] = Field(default_factory=list)
    dry_run: bool = Field(False, description="add nothing, say whether it could be")


@routes.post("/together", status_code=201)
async def add_together(gateway: TheGateway, given: Together) -> dict[str, Any]:
    """Add accounts and the applications that use them, all of them or none; `passwords` are those generated."""
    added = await gateway.add_together(given.accounts, given.applications, dry_run=given.dry_run)
    return {
        "dry_run": given.dry_run,
        "accounts": [gateway.accounts.show(one) for one in added.accounts],
        "applications": [gateway.applications.show(one) for one in added.applications],
        "passwords": {} if given.dry_run else dict(added.passwords),
        "order": list(added.order),
    }


@routes.get("/{name}")
async def get_account(gateway: TheGateway, name: str) -> dict[str, Any]:
    """One account, and how it is."""
    account = gateway.accounts.get(name)
    return _shown(gateway, account, await gateway.consents.of_all([account]))


@routes.patch("/{name}")
async def edit_account(gateway: TheGateway, name: str, fields: Fields) -> dict[str, Any]:
    """Change the fields given; the next transaction uses them."""
    return gateway.accounts.show(await gateway.accounts.edit(name, fields))


@routes.delete("/{name}", status_code=204)
async def remove_account(gateway: TheGateway, name: str) -> Response:
    """Remove an account for which nothing waits."""
    await gateway.accounts.remove(name)
    return Response(status_code=204)


@routes.post("/{name}/sleep")
async def put_account_to_sleep(gateway: TheGateway, name: str, sleep: Sleep) -> dict[str, Any]:
    """Let an account send nothing for a while; its mail waits."""
    try:
        pause = parse_duration(sleep.duration)
    except QuantityFault as error:
        raise InvalidInput(Fault("for", error.fault, error.mend)) from None
    if not timedelta(0) < pause <= LONGEST_SLEEP:
        raise InvalidInput(Fault("for", f"{sleep.duration} is not between 1ms and 365d", "write 30m, 2h or 1d"))
    circuit: dict[str, Any] = to_json(await gateway.scheduler.put_to_sleep(gateway.accounts.get(name), pause))
    return circuit


@routes.post("/{name}/wake")
async def wake_account(gateway: TheGateway, name: str) -> dict[str, Any]:
    """Let an account send again that sleeps or needs attention."""
    circuit: dict[str, Any] = to_json(await gateway.scheduler.wake(gateway.accounts.get(name)))
    return circuit


@routes.post("/{name}/move")
async def move_account(gateway: TheGateway, name: str, move: Move) -> dict[str, Any]:
    """Move an account in the list."""
    return gateway.accounts.show(await gateway.accounts.move(name, move.position))


@routes.get("/{name}/dkim")
async def get_dkim_keys(gateway: TheGateway, name: str) -> dict[str, Any]:
    """The account's DKIM keys with the DNS records to publish; private keys are never given back."""
    keys = gateway.accounts.published_keys(name)
    account = gateway.accounts.get(name)
    shown = [
        {"algorithm": key.algorithm, "selector": key.selector, "record": to_json(key.record)}
        | {"zone_line": key.record.zone_line()}
        for key in keys
    ]
    return {"account": account.name, "domain": account.dkim.domain, "keys": shown}


@routes.post("/{name}/dkim", status_code=201)
async def make_dkim_keys(gateway: TheGateway, name: str, new: NewKeys) -> dict[str, Any]:
    """Make DKIM keys in the place of those that the account has; its mail is signed with them from now on."""
    await gateway.accounts.make_dkim_keys(name, new.domain, new.selector, new.key)
    return await get_dkim_keys(gateway, name)


@routes.delete("/{name}/dkim", status_code=204)
async def remove_dkim_keys(gateway: TheGateway, name: str) -> Response:
    """Forget the account's DKIM keys: its mail is no longer signed here."""
    await gateway.accounts.remove_dkim_keys(name)
    return Response(status_code=204)
