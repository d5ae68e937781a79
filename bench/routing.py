"""How long it takes to find the account of a message: 1,000 accounts with ten patterns each (SPEC section 2.6)."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

from postroom.model.account import Account, AccountKind
from postroom.model.application import Application
from postroom.policy.routing import RoutingTable

from . import page, results

ACCOUNTS = 1000
PATTERNS = 10


def table(accounts: int, patterns: int, seed: int) -> RoutingTable:
    """Accounts with sender and recipient patterns of every kind, half of each; the last one takes everything."""
    chance = random.Random(seed)

    def pattern() -> str:
        domain = f"d{chance.randrange(5000)}.example"
        return chance.choice((f"u{chance.randrange(50)}@{domain}", f"*@{domain}", f"*@*.{domain}"))

    return RoutingTable(
        [
            Account(
                id=n + 1,
                name=f"relay{n}",
                kind=AccountKind.SMTP,
                host="relay.example",
                sender_patterns=tuple(pattern() for _ in range(patterns // 2)),
                recipient_patterns=tuple(pattern() for _ in range(patterns - patterns // 2)),
            )
            for n in range(accounts - 1)
        ]
        + [Account(id=accounts, name="rest", kind=AccountKind.SMTP, host="relay.example")]
    )


def measure(routes: RoutingTable, messages: int, seed: int) -> list[float]:
    """Microseconds for each of `messages` messages, from the reverse-path and another From to one recipient."""
    chance = random.Random(seed)
    application = Application(id=1, name="bench")

    def address() -> str:
        return f"u{chance.randrange(50)}@{chance.choice(('', 'mail.', 'a.b.'))}d{chance.randrange(5000)}.example"

    spent = []
    for _ in range(messages):
        senders, recipient = (address(), address()), address()
        started = time.perf_counter()
        routes.route(application, senders, recipient)
        spent.append((time.perf_counter() - started) * 1e6)
    return sorted(spent)


def main(arguments: list[str]) -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(prog="bench routing", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--no-keep", action="store_true", help="do not write results and page")
    given = parser.parse_args(arguments)
    started = time.perf_counter()
    routes = table(ACCOUNTS, PATTERNS, seed=1)
    made = (time.perf_counter() - started) * 1000
    spent = measure(routes, given.messages, seed=2)
    figures: dict[str, Any] = {
        "surroundings": results.surroundings(Path(__file__).parent),
        "accounts": ACCOUNTS,
        "patterns_each": PATTERNS,
        "messages": given.messages,
        "table_made_ms": round(made, 1),
        "median_us": round(statistics.median(spent), 2),
        "p99_us": round(spent[int(len(spent) * 0.99)], 2),
        "most_us": round(spent[-1], 2),
    }
    print("\n".join(lines(figures)))
    if not given.no_keep:
        results.keep("routing", figures)
        page.write("routing", lines(figures))
    return 0


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures for the page."""
    return [
        page.where(figures["surroundings"]),
        "",
        f"{figures['accounts']} accounts with {figures['patterns_each']} patterns each, {figures['messages']} messages:"
        f" {figures['median_us']} us a recipient in the median, {figures['p99_us']} us for 99 of 100,"
        f" {figures['most_us']} us at most (goal: under 1,000). The table is made anew in"
        f" {figures['table_made_ms']} ms when an account changes.",
    ]
