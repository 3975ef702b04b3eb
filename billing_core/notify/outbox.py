"""The outbox: sends what waits to every receiver of the settings, each at its own pace, one process at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from billing_core.ledger.deliveries import DeliveryLog
from billing_core.ledger.engine import Engine
from billing_core.notify.delivery import AppriseReceiver, Delivered, Message, Receiver, deliver
from billing_core.notify.webhook import Webhook
from billing_core.runtime.clock import Clock
from billing_core.runtime.locks import exclusive
from billing_core.settings import Settings

Waiting = Callable[[str | None], Sequence[Message]]
"""The messages that still wait to be sent to the receiver with a key."""


class Outbox:
    """Sends messages to the receivers of the settings: the signed webhook and the addresses of BILLING_NOTIFY_URLS."""

    def __init__(
        self, settings: Settings, engine: Engine, clock: Clock, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.log = DeliveryLog(engine)
        self._settings, self._clock, self._pause = settings, clock, pause

    @property
    def receivers(self) -> tuple[Receiver, ...]:
        """Where messages go; empty if nothing is set."""
        webhook = Webhook.from_settings(self._settings)
        addresses = [AppriseReceiver(address) for address in self._settings.notify_addresses]
        return (*([] if webhook is None else [webhook]), *addresses)

    def deliver(self, waiting: Waiting) -> Delivered:
        """Send what is due. A receiver that hangs or refuses holds up nobody else."""
        receivers = [receiver for receiver in self.receivers if waiting(receiver.key)]
        if not receivers:
            return Delivered()
        path = self._settings.warehouse_path
        with (
            exclusive(path.with_name(path.name + ".webhook")),  # two processes would send everything twice
            ThreadPoolExecutor(len(receivers), thread_name_prefix="notify") as pool,
        ):
            rounds = pool.map(
                lambda receiver: deliver(self.log, receiver, waiting(receiver.key), self._clock, pause=self._pause),
                receivers,
            )
            return sum(rounds, Delivered())
