"""What people ask of the gateway: what a message waits for, how it left, where one would go, how the accounts are."""

from __future__ import annotations

from collections.abc import Sequence

from .accounts.service import AccountService
from .accounts.unbuilt import refusal
from .applications.service import ApplicationService
from .errors import Fault, NotFound
from .model.account import Account
from .model.circuit import Circuit, Health
from .model.clock import Clock
from .model.explanation import Explanation
from .model.ids import message_id_text
from .model.queue import DeliveryState, LaneId, MessageId
from .queue import rules
from .queue.as_sent import AsSent, as_sent
from .queue.deadlines import Deadlines
from .queue.overview import overview
from .queue.route_explained import RouteExplanation, explain_route, questions
from .queue.scheduler import Scheduler
from .queue.why import Sending, explain, marks
from .settings.service import SettingsService
from .store import MessageView, Store


class Answers:
    """Answers from what is stored and what is going on; changes nothing."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        hostname: str,
        configuration: SettingsService,
        accounts: AccountService,
        applications: ApplicationService,
        scheduler: Scheduler,
        deadlines: Deadlines,
    ) -> None:
        self._store = store
        self._clock = clock
        self._hostname = hostname
        self._configuration = configuration
        self._accounts = accounts
        self._applications = applications
        self._scheduler = scheduler
        self._deadlines = deadlines

    async def why(self, message_id: MessageId) -> list[Explanation]:
        """What each delivery of the message waits for, or how it ended.

        Raises:
            NotFound: there is no such message.
        """
        view = await self._store.message(message_id)
        if view is None:
            raise NotFound(
                Fault("id", f"there is no message {message_id_text(message_id)}", "take it from `postroom queue list`")
            )
        accounts = {account.id: account for account in self._accounts.snapshot()}
        now = self._clock.now()
        switch = Sending(self._configuration.lets_send, self._configuration.mend("sending_enabled"))
        return [
            explain(
                view,
                row,
                accounts.get(row.lane),
                self.circuit(accounts.get(row.lane)),
                sending=switch,
                running=self._scheduler.is_running,
                now=now,
                next_beat=self._scheduler.beats.next_from(max(row.due, now) if row.due is not None else now),
                times=self._deadlines.times(row),
                redirected_to=self._redirected_to(accounts.get(row.lane), row.recipient),
            )
            for row in view.deliveries
        ]

    async def as_sent(self, view: MessageView) -> list[AsSent | None]:
        """How each delivery of `view` leaves, or left; see `queue.as_sent`."""
        known_from = self._clock.now() - self._configuration.current.retention
        return await as_sent(
            view, self._accounts.snapshot(), self._configuration.current.forced_postmaster, self._store, known_from
        )

    def marks(self, view: MessageView) -> list[tuple[str, ...]]:
        """What is not known of each delivery: whether the relay has it, or has it twice; and who gets it instead."""
        accounts = {account.id: account for account in self._accounts.snapshot()}
        return [marks(view, row, self._redirected_to(accounts.get(row.lane), row.recipient)) for row in view.deliveries]

    def _redirected_to(self, account: Account | None, recipient: str) -> str:
        return rules.redirected_to(self._configuration.current, account, recipient)

    def circuit(self, account: Account | None) -> Circuit:
        """How the account is; one that must not send needs attention before it has tried to."""
        refused = refusal(account) if account is not None else None
        if refused is not None:
            return Circuit(health=Health.NEEDS_ATTENTION, reason=refused[0], advice=refused[1])
        return self._scheduler.circuit(LaneId(account.id)) if account is not None else Circuit()

    def explain_route(
        self, application: str, sender: str, recipients: Sequence[str], header: Sequence[str], account: str
    ) -> list[RouteExplanation]:
        """What would become of a message to each of `recipients`, without sending it; see `queue.route_explained`.

        Raises:
            NotFound: there is no such application.
            InvalidInput: an address or the header can't be read.
        """
        asked = questions(self._applications.get(application), sender, recipients, header, account)
        table, postmaster = self._accounts.routes(), self._configuration.current.forced_postmaster
        return [explain_route(question, table, self.circuit, postmaster, self._redirected_to) for question in asked]

    async def status(self) -> dict[str, object]:
        """Switches, and accounts with their circuits and counts, for `status` and the dashboard."""
        counts = await self._store.counts()
        rows = overview(self._accounts.snapshot(), self.circuit, counts)
        beats, now, guard = self._scheduler.beats, self._clock.now(), rules.staging_guard(self._configuration.current)
        return {
            "running": self._scheduler.is_running,
            "hostname": self._hostname,
            "sending_enabled": self._configuration.current.sending_enabled,
            "guard_is_lost": self._configuration.guard_is_lost,
            "redirected_to": guard.redirect_to if guard is not None else "",
            "hold_pending_at_start": self._configuration.current.hold_pending_at_start,
            "batch_interval": self._configuration.current.batch_interval,
            "next_batch": beats.next_from(now) if self._scheduler.is_running else None,
            "held": sum(n for (_, state), n in counts.items() if state is DeliveryState.HELD),
            "accounts": rows,
        }
