"""The broker of a host: who is subscribed to which destination.

Every subscriber of a destination gets what is sent there, replies included: that two clients of one
reply destination read each other's answers is VDSM's behaviour, and the client's problem.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from engine_pg.hosts.vdsm.constants import EVENTS
from engine_pg.simulator.frames import Frame


class Sink(Protocol):
    """Where a subscriber's frames go."""

    def send(self, frame: Frame) -> None:
        """Send without waiting."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """One client's interest in one destination."""

    subscription_id: str
    destination: str
    sink: Sink


class Broker:
    """The subscriptions of all clients of a host."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, list[Subscription]] = {}

    def subscribe(self, subscription: Subscription) -> None:
        """Add a subscription."""
        self._subscriptions.setdefault(subscription.destination, []).append(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a subscription."""
        subscribed = self._subscriptions[subscription.destination]
        subscribed.remove(subscription)
        if not subscribed:
            del self._subscriptions[subscription.destination]

    def publish(self, destination: str, body: bytes) -> None:
        """Send a message to the subscribers of exactly this destination."""
        for subscription in self._subscriptions.get(destination, ()):
            headers = {
                "destination": destination,
                "content-type": "application/json",
                "subscription": subscription.subscription_id,
            }
            subscription.sink.send(Frame("MESSAGE", headers, body))

    def forward(self, frame: Frame, destination: str) -> int:
        """Pass a client's message to subscribers of the destination and its dotted parents."""
        hearers = [
            subscription
            for parent, subscriptions in self._subscriptions.items()
            if destination == parent or destination.startswith(parent + ".")
            for subscription in subscriptions
        ]
        plain = {name: text for name, text in frame.headers.items() if name != "content-length"}
        for subscription in hearers:
            headers = {"subscription": subscription.subscription_id} | plain
            subscription.sink.send(Frame("MESSAGE", headers, frame.body))
        return len(hearers)

    def notify(self, operation: str, about: str, params: dict[str, Any]) -> None:
        """Send an event of the `virt` component."""
        event = {"jsonrpc": "2.0", "method": f"|virt|{operation}|{about}", "params": params}
        self.publish(EVENTS, json.dumps(event).encode())
