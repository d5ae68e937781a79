"""The composition root and library face: names the implementations and joins them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import structlog

from . import events
from .accounts.fields import ACCOUNT_FIELDS
from .accounts.fields import DEFAULTS as ACCOUNT_DEFAULTS
from .accounts.own_connection import parse_connection
from .accounts.own_connections import OwnConnections
from .accounts.service import AccountService
from .answers import Answers
from .applications.fields import APPLICATION_FIELDS
from .applications.fields import DEFAULTS as APPLICATION_DEFAULTS
from .applications.service import ApplicationService
from .backup import Backup, backup, try_keys
from .config import Settings
from .crashing import reach
from .diagnosis.expiries import expiries
from .diagnosis.trial import Trials, Wanted
from .errors import Fault, GatewayError, InvalidInput, NotFound, StateConflict
from .mime.head import split
from .mime.large_body import LargeBody
from .model.account import Account
from .model.application import Application
from .model.clock import Clock
from .model.content import CHUNK_BYTES, INLINE_BYTES, Content, ContentId
from .model.queue import DeliveryState, MessageId
from .model.submission import Accepted, Submission
from .net.own_name import own_name
from .net.system_clock import SystemClock
from .oauth.consent import ConsentService
from .oauth.service import TokenService, TrialTokens
from .pending import Pending
from .policy.composing import ComposedSender, Composing, composed_sender
from .policy.patterns import matches_any
from .policy.postmaster import named_by
from .policy.retry import own_terms
from .queue import indexing, maintenance, retention, rules
from .queue.admission import Admission
from .queue.alerts import Alerts, House
from .queue.archive import CURSOR, Archive
from .queue.bounce import Reporter
from .queue.clock_watch import ClockWatch
from .queue.deadlines import Deadlines
from .queue.fallback import Directory
from .queue.intake import Intake
from .queue.master_switch import MasterSwitch
from .queue.outgoing import Outgoing
from .queue.rerouting import ALL, Covering, Rerouted, Rerouter
from .queue.resubmission import resubmission, unreached
from .queue.scheduler import Scheduler
from .secrets import Keyring, KeyRotation, made_keys_go_again
from .settings.service import SettingsService
from .store import EventFilter, EventPage, Selection, Store
from .store.database import open_store
from .suppressions.service import Given as GivenSuppression
from .suppressions.service import SuppressionService
from .transports.by_kind import Transports

_log = structlog.get_logger()

#: Where the store keeps when sending was off; no setting has this name.
PAUSES = "sending_pauses"

#: Where it keeps what was alerted of, as well.
OPEN_ALERTS = "open_alerts"


@dataclass(frozen=True, slots=True)
class Added:
    """What was added, or would be: the generated passwords by the name of their application, and the order of all
    accounts."""

    accounts: tuple[Account, ...]
    applications: tuple[Application, ...]
    passwords: Mapping[str, str] = field(repr=False)
    order: tuple[str, ...]


class Gateway:
    """One mail room on one data folder. Make it with `open`, begin delivering with `start`, end with `stop`."""

    def __init__(
        self,
        configuration: SettingsService,
        store: Store,
        accounts: AccountService,
        applications: ApplicationService,
        clock: Clock,
        random_unit: Callable[[], float],
        hostname: str,
        keyring: Keyring,
    ) -> None:
        self._keyring = keyring
        self.configuration = configuration
        self.store = store
        self.accounts = accounts
        self.applications = applications
        self.suppressions = SuppressionService(store.suppressions, clock.now)
        self.clock, self.hostname = clock, hostname
        settings = configuration.current
        self.tokens = TokenService(store.tokens, clock)
        self.consents = ConsentService(self.tokens, clock, lambda: self.settings.public_url, self._may_send_again)
        accounts.refresh_token = self.consents.refresh_token
        own = OwnConnections(keyring, applications.by_id)
        self._transports = Transports(settings, clock, random_unit, store.chunks, hostname, own, self.tokens)
        accounts.names = lambda: self._transports.names
        self._clock_watch = ClockWatch(clock)
        self._signing = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "sign")
        self._switch = MasterSwitch(
            lambda is_off: self.scheduler.pause(is_off), clock, lambda text: store.save_setting(PAUSES, text),
            configuration.memory(PAUSES),
        )  # fmt: skip
        self.deadlines = Deadlines(
            clock, lambda: configuration.current, accounts.snapshot, lambda lane: self.scheduler.circuit(lane),
            lambda: self._switch.standstill,
        )  # fmt: skip
        directory = Directory(accounts.routes, applications.by_id)
        self.scheduler = Scheduler(
            store, clock, self._lane_rules(settings), self._transports.make, random_unit, directory
        )
        self._rerouter = Rerouter(store, clock, directory, self.scheduler.lane)
        self._admission = Admission(self.scheduler.limiter, applications.snapshot, accounts.snapshot, keyring.digest)
        self._intake = Intake(
            store, clock, accounts.routes, self.scheduler.offer, self.hostname, settings.smtp.max_mime_depth,
            applications.refused, self._admission,
        )  # fmt: skip
        self._intake.archive_bcc = settings.archive.bcc
        self._intake.seal = own.seal
        reporting = rules.notification_rules(settings, hostname, self.deadlines)
        self._reporter = Reporter(store, clock, self._intake, reporting, applications.find, os.urandom)
        house = House(
            accounts.snapshot,
            lambda lane: self.answers.circuit(accounts.routes().by_id(lane)),
            lambda: self.scheduler.ended(),
            lambda: expiries(configuration.current, accounts.snapshot()),
            lambda: shutil.disk_usage(configuration.current.data).free,
            self._admission.watched,
        )
        self.answers = Answers(
            store, clock, hostname, configuration, accounts, applications, self.scheduler, self.deadlines
        )  # fmt: skip
        self._alerts = Alerts(
            store, clock, self._intake, lambda: rules.alert_rules(configuration.current, hostname), house, os.urandom,
            lambda text: store.save_setting(OPEN_ALERTS, text), configuration.memory(OPEN_ALERTS),
        )  # fmt: skip
        self._archive = Archive(
            store, clock, lambda: configuration.current.archive.folder, lambda text: store.save_setting(CURSOR, text),
            configuration.memory(CURSOR),
        )  # fmt: skip
        self.deadlines.on_change.append(self._alerts.notice)
        self.trials = Trials(
            clock, hostname, configuration, self._transports, lambda: self.scheduler.limiter, self.answers.circuit,
            self._outgoing,
            lambda account: TrialTokens(self.tokens, accounts.by_id(account.id)), store,
        )  # fmt: skip
        self._background: list[asyncio.Task[None]] = []
        store.on_restored.append(self.scheduler.look)
        accounts.on_change.append(lambda: self.scheduler.follow(accounts.snapshot()))
        accounts.on_change += [self.deadlines.follow, self._admission.follow]
        applications.on_change.append(self._admission.follow)
        configuration.on_change.append(self._settings_changed)

    @classmethod
    async def open(
        cls,
        settings: Settings,
        *,
        clock: Clock | None = None,
        random_unit: Callable[[], float] = random.random,
        on_broken: Callable[[BaseException], None] | None = None,
    ) -> Gateway:
        """A gateway on `settings.data`, made and migrated as needed; it accepts, but delivers only after `start`.

        `on_broken` is called once when the store has failed for good: the process must leave.

        Raises:
            GatewayError: the folder, its keys or its database can't be used; the text says what to do.
        """
        clock = clock or SystemClock()
        folder = Path(settings.data)
        with made_keys_go_again(folder, settings):
            keyring = Keyring.load(folder, settings)
            store = await open_store(settings.store, keyring, clock.now, on_broken=on_broken)
            configuration = SettingsService(store, settings)
            accounts = AccountService(store)
            applications = ApplicationService(store, keyring)
            accounts.named_by = lambda name: (
                *(f"application {one}" for one in applications.naming(name)),
                *(f"the setting {one}" for one in configuration.naming(name)),
            )
            applications.account_name = configuration.account_name = accounts.spelling
            applications.forced_postmaster = lambda: configuration.current.forced_postmaster
            configuration.sender_named_by = lambda address: named_by(address, applications.snapshot())
            try:
                await configuration.load()
                await accounts.load()
                await applications.load()
                if settings.database:
                    await try_keys(store, keyring)
            except BaseException:
                await store.close()
                raise
        hostname = settings.hostname or await own_name()
        gateway = cls(configuration, store, accounts, applications, clock, random_unit, hostname, keyring)
        await gateway.scheduler.load(accounts.snapshot())
        gateway.deadlines.load(await store.standstills())
        gateway._admission.follow()
        return gateway

    async def start(self, deliver: bool = True, *, paused: bool = False) -> None:
        """Recover what a crash left and begin to deliver (or only to accept); `paused`: with `follow_switch`."""
        await self.store.tokens.release_all()
        if not deliver:
            await self._recover_only()
            return
        settings = self.settings
        await self._clock_watch.remember(self.store)
        recovered = await self.scheduler.start(
            self.accounts.snapshot(), paused=True, hold_pending=settings.hold_pending_at_start
        )
        await self._archive.begin()
        self.scheduler.batch(settings.batch_interval)
        if not paused:
            self.follow_switch()
        if recovered:
            _log.warning("recovered_after_crash", deliveries=recovered)
        reporting = settings.notifications.account
        if reporting and self.accounts.spelling(reporting) is None:
            what = "reports go by the route of their messages until there is an account of that name"
            _log.error("no_such_account", setting="notifications.account", account=reporting, what=what)
        told = maintenance.Told(self._reporter.notice, self.scheduler.clock_jumped, self.scheduler.limiter.clock.now)
        jobs = (
            maintenance.run(self.store, self.clock, self._maintenance_rules, self._clock_watch, told),
            self._reporter.run(),
            self._alerts.run(),
            self._archive.run(),
            retention.run(self.store, self.clock, self._ages, self._clock_watch.is_believed, self._archive.bound),
            indexing.run(self.store, self.clock, lambda: self.settings.subject_search),
            self.tokens.keep_alive(self.accounts.snapshot),
        )
        self._background = [asyncio.create_task(job) for job in jobs]

    async def _recover_only(self) -> None:
        """No gateway sends: what was being sent was cut off by a crash, and people may look at it and move it."""
        counts = await self.store.counts()
        if any(count for (_, state), count in counts.items() if state is DeliveryState.SENDING):
            await self.store.recover(self.clock.now())
            await self.scheduler.limiter.load()  # what was cut off counts
        self.accounts.on_change.append(self._limit_tests)
        self._limit_tests()

    def _limit_tests(self) -> None:
        """Tests of connections send by the accounts' limits, also where nothing else sends."""
        self.scheduler.limiter.follow(self.accounts.snapshot())

    def follow_switch(self) -> None:
        """Send, or claim nothing more, as the master switch says now; nothing leaves without its guard."""
        self._switch.turn(self.configuration.lets_send)

    async def stop(self) -> None:
        """End deliveries under way, keep their outcomes, close the store."""
        for task in self._background:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.scheduler.stop()
        await self.tokens.close()
        self._signing.shutdown()
        await self.store.close()

    async def _may_send_again(self, account: Account) -> None:
        """Somebody consented: what the account stopped for is mended."""
        circuit = self.answers.circuit(account)
        if not circuit.may_send and not circuit.by_hand:
            await self.scheduler.wake(account)

    # Definitions --------------------------------------------------------------------------------------------------

    async def add_together(
        self,
        accounts: Sequence[Mapping[str, object]],
        applications: Sequence[Mapping[str, object]],
        *,
        dry_run: bool = False,
    ) -> Added:
        """Add accounts and the applications that use them, all of them or none. An application may bring its
        `password`; else one is generated. With `dry_run` it is only looked whether it could be done.

        Raises:
            InvalidInput: a fault for every field that is bad, by account or application and field; nothing was done.
        """
        async with self.accounts.one_change, self.applications.one_change:
            new, order = self.accounts.parse_all(accounts)
            spelt = {account.name.lower(): account.name for account in new}
            made, passwords = self.applications.prepare_all(
                applications, lambda name: spelt.get(name.lower()) or self.accounts.spelling(name)
            )
            if not dry_run:
                await self.store.save_accounts(new, order, *made)
                await self.accounts.changed()
                await self.applications.changed()
            return Added(tuple(new), tuple(made), passwords, tuple(order))

    # Settings -----------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return self.configuration.current

    def _settings_changed(self, before: Settings, after: Settings) -> None:
        self._intake.max_mime_depth = after.smtp.max_mime_depth
        self._intake.archive_bcc = after.archive.bcc
        self._reporter.rules = rules.notification_rules(after, self.hostname, self.deadlines)
        self.scheduler.change_rules(self._lane_rules(after))
        if self._transports.change(after):
            self.scheduler.renew_transports()
        if self.scheduler.is_running:
            self.scheduler.batch(after.batch_interval)
            self.follow_switch()

    def _lane_rules(self, settings: Settings) -> rules.LaneRules:
        is_believed = self._clock_watch.is_believed
        return rules.lane_rules(settings, self.deadlines, is_believed, lambda: self._reporter.notice(), self._outgoing)

    def _ages(self) -> retention.Ages:
        return rules.kept_for(self.settings)

    def _maintenance_rules(self) -> maintenance.MaintenanceRules:
        return rules.maintenance_rules(self.settings, self.deadlines)

    # Doors --------------------------------------------------------------------------------------------------------

    #: The rules of retrying that a message brings.
    own_retry = staticmethod(own_terms)

    #: The connection that a message brings.
    own_connection = staticmethod(parse_connection)

    def submit(self, submission: Submission) -> Pending[Accepted]:
        """Take a message; see `Intake.submit`."""
        return self._intake.submit(submission)

    def composed_sender(self, message: Composing) -> ComposedSender:
        """Who a message that is composed here is from, and where its answers go; see `policy.composing`."""
        return composed_sender(message, self.accounts.routes(), self.settings.forced_postmaster)

    @staticmethod
    def may_send_as(application: Application, address: str) -> bool:
        """Whether `address` is an allowed sender of `application`; the null reverse-path needs `*`."""
        if not address:
            return "*" in application.senders
        return matches_any(application.senders, address)

    async def keep_content(self, raw: bytes) -> Content:
        """Content from a whole message in memory: large bodies are staged, so that they are stored in pieces.

        `raw` has CRLF line ends. Raises StorageFull or StorageFailed.
        """
        head, body = split(raw)
        if len(body) <= INLINE_BYTES:
            return Content(head, body)
        content_id = ContentId(os.urandom(16))
        large = LargeBody(head)
        for index, start in enumerate(range(0, len(body), CHUNK_BYTES)):
            chunk = body[start : start + CHUNK_BYTES]
            large.add(chunk)
            await self.store.stage(content_id, index, chunk)
        reach("A3")
        return Content(head, large.staged(content_id))

    async def backup(self, folder: Path, *, with_keys: bool) -> Backup:
        """Back up the data folder while it is in use; see `backup.backup`."""
        return await backup(self.settings, folder, with_keys=with_keys, now=self.clock.now())

    async def rotate_keys(self) -> KeyRotation:
        """A new key seals from now on, and what older ones sealed is sealed anew; they stay, for generated passwords
        and older backups. Keys that come from elsewhere are replaced there; here only the sealing is done anew.

        Raises:
            InvalidInput: the keys file can't be written, or a secret can't be opened.
        """
        added = await asyncio.to_thread(self._keyring.rotate)
        reach("D8-keys")
        return KeyRotation(added, await self.store.reseal())

    async def events(
        self, wanted: EventFilter, wait: timedelta = timedelta(0), is_ending: Callable[[], bool] = lambda: False
    ) -> EventPage:
        """A page of events, waited for; see `events.page`."""
        return await events.page(self.store, self.clock, wanted, wait, is_ending)

    # The queue by hand --------------------------------------------------------------------------------------------

    async def hold(self, selection: Selection) -> int:
        """Hold what waits; how many."""
        return await self.store.hold(selection, self.clock.now())

    async def release(self, selection: Selection) -> int:
        """Release what is held; how many."""
        released = await self.store.release(selection, self.clock.now())
        self.scheduler.look()
        return released

    async def retry(self, selection: Selection) -> int:
        """Try deferred deliveries now; how many."""
        retried = await self.store.retry(selection, self.clock.now())
        for account in self.accounts.snapshot():
            if account.id == selection.lane:
                await self.scheduler.wake(account)
        self.scheduler.look()
        return retried

    async def cancel(self, selection: Selection) -> int:
        """Cancel what has not ended and is not being sent; how many."""
        return await self.store.cancel(selection, self.clock.now())

    async def reroute(self, what: Selection, to: str = "", *, may_duplicate: bool, only: Covering = ALL) -> Rerouted:
        """Move what waits or is held to the account `to` (NotFound where there is none), or where it would go today."""
        target = self.accounts.get(to) if to else None
        return await self._rerouter.reroute(what, target, may_duplicate=may_duplicate, covering=only)

    async def resubmit(self, message_id: MessageId) -> Accepted:
        """A new message for the recipients whose deliveries ended without being delivered; it names the old one.

        Raises:
            NotFound: there is no such message, or its application is gone.
            StateConflict: no recipient of it ended undelivered, or its content was removed already.
        """
        view = await self.store.message(message_id)
        if view is None:
            raise NotFound(Fault("id", "there is no such message", "take it from `postroom queue list`"))
        again = unreached(view)
        raw = await self.store.content(message_id)
        if raw is None:
            raise StateConflict("the content of this message was removed already")
        application = self.applications.get(view.application)
        submission = resubmission(view, again, application, await self.keep_content(raw), self.clock.now())
        return await self.submit(submission)

    async def wait_drained(self, patience: timedelta = timedelta(minutes=5)) -> bool:
        """Wait until nothing is queued, being sent or deferred; whether that came in time."""
        deadline = self.clock.monotonic() + patience.total_seconds()
        open_states = {DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.DEFERRED}
        while any(n for (_, state), n in (await self.store.counts()).items() if state in open_states):
            if self.clock.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    # Implementations by name --------------------------------------------------------------------------------------

    def _outgoing(self, account: Account) -> Outgoing | None:
        return Outgoing.of(account, self.settings.forced_postmaster, self._signing, self.store.chunks)


__all__ = [
    "ACCOUNT_DEFAULTS",
    "ACCOUNT_FIELDS",
    "APPLICATION_DEFAULTS",
    "APPLICATION_FIELDS",
    "Composing",
    "Covering",
    "Gateway",
    "GatewayError",
    "GivenSuppression",
    "InvalidInput",
    "Rerouted",
    "SystemClock",
    "Wanted",
]
