"""The small world the sandbox tells of: who uses what, and what it costs there.

Names, ids and prices are this stand-in's own; they do not change, so that a ledger filled yesterday still
fits today's sandbox.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

LANGFUSE_PUBLIC_KEY = "pk-lf-demo"
LANGFUSE_SECRET_KEY = "sk-lf-demo"  # noqa: S105 - public on purpose: it opens nothing but the sandbox
STRIPE_KEY = "sk_test_sandbox"
METER_EVENT_NAME = "credits"
PROJECT_ID = "sandbox-project"

NUMERIC_CUSTOMER = "1048577"
"""A customer id of an older system that looks like a number; Langfuse hands it out as one. Stripe has never seen it."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model and its price in USD × 10⁻¹² per token by usage key; no prices: Langfuse does not know the model."""

    name: str
    prices: dict[str, int]
    cached_key: str | None = None
    """Usage key under which cached input arrives, if the vendor reports it."""
    written_key: str | None = None
    """Usage key under which input written to the cache arrives."""
    reasoning_key: str | None = None

    @property
    def id(self) -> str:
        """Langfuse's id of the price definition; empty where none matches."""
        return "mdl_" + hashlib.sha256(self.name.encode()).hexdigest()[:20] if self.prices else ""


@dataclass(frozen=True, slots=True)
class Organization:
    """A paying organization: `share` is its weight in the traffic."""

    id: str
    name: str
    customer: str | None
    users: tuple[str, ...]
    share: float
    own_key_share: float = 0.0
    """Part of its traces that run on the organization's own provider key."""


@dataclass(frozen=True, slots=True)
class Chatflow:
    """An application people run: which shape its traces have and which models it calls."""

    id: str
    name: str
    shape: str
    models: tuple[str, ...]
    """First the one that answers, then the one that plans."""
    share: float
    storage: bool = False


EMBEDDING_MODEL = "text-embedding-3-large"
BEDROCK_MODEL = "arn:aws:bedrock:eu-central-1:000000000000:inference-profile/eu.anthropic.claude-haiku-5-v1:0"

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model(
            "gpt-5-mini",
            {
                "input": 250_000,
                "input_cached_tokens": 25_000,
                "output": 2_000_000,
                "output_reasoning_tokens": 2_000_000,
            },
            cached_key="input_cached_tokens",
            reasoning_key="output_reasoning_tokens",
        ),
        Model(
            "gpt-5",
            {
                "input": 1_250_000,
                "input_cached_tokens": 125_000,
                "output": 10_000_000,
                "output_reasoning_tokens": 10_000_000,
            },
            cached_key="input_cached_tokens",
            reasoning_key="output_reasoning_tokens",
        ),
        Model(
            "claude-sonnet-5",
            {
                "input": 3_000_000,
                "cache_read_input_tokens": 300_000,
                "cache_creation_input_tokens": 3_750_000,
                "output": 15_000_000,
            },
            cached_key="cache_read_input_tokens",
            written_key="cache_creation_input_tokens",
        ),
        Model(
            "claude-haiku-5",
            {
                "input": 1_000_000,
                "cache_read_input_tokens": 100_000,
                "cache_creation_input_tokens": 1_250_000,
                "output": 5_000_000,
            },
            cached_key="cache_read_input_tokens",
            written_key="cache_creation_input_tokens",
        ),
        Model("gemini-3-flash", {"input": 301_507, "output": 2_498_113}),  # a router's mark-up: all twelve decimals
        Model(EMBEDDING_MODEL, {"input": 130_000}),
        Model(BEDROCK_MODEL, {}),
    )
}


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _names(
    "ada alan barbara claude donald edsger emmy frances grace hedy ida jean karen katherine ken leslie linus "
    "margaret niklaus radia"
)
LAST_NAMES = _names(
    "berg costa dupont eriksen fischer garcia haas ivanov jansen kowalski lindqvist moreau novak okafor papadakis"
)


def _users(slug: str, number: int) -> tuple[str, ...]:
    """`number` different addresses; the pairs of names walk a coprime stride, so they look unordered."""
    return tuple(
        f"{FIRST_NAMES[i % len(FIRST_NAMES)]}.{LAST_NAMES[(i * 7 + i // 20) % len(LAST_NAMES)]}@{slug}.example"
        for i in range(number)
    )


def _organization(rank: int, name: str, users: int, *, billed: bool = True, own_key_share: float = 0.0) -> Organization:
    slug = name.lower()
    digest = hashlib.sha256(slug.encode()).hexdigest()
    customer = f"cus_{slug}{digest[:6]}" if billed else None
    return Organization(f"org_{slug}", name, customer, _users(slug, users), 1 / rank**1.15, own_key_share)


ORGANIZATIONS: tuple[Organization, ...] = (
    _organization(1, "Acme", 78, own_key_share=0.03),
    _organization(2, "Globex", 56),
    _organization(3, "Initech", 41),
    _organization(4, "Umbrella", 31, own_key_share=0.45),
    _organization(5, "Hooli", 24),
    _organization(6, "Stark", 19),
    _organization(7, "Wayne", 15, own_key_share=0.08),
    _organization(8, "Wonka", 12),
    _organization(9, "Tyrell", 9),
    _organization(10, "Soylent", 7, billed=False),
    _organization(11, "Cyberdyne", 5),
    _organization(12, "Oscorp", 3),
)
"""Sizes fall off steeply, as they do; Soylent has no Stripe customer."""


def _chatflow(name: str, shape: str, models: tuple[str, ...], share: float, *, storage: bool = False) -> Chatflow:
    return Chatflow(str(uuid.uuid5(uuid.NAMESPACE_URL, f"sandbox/{name}")), name, shape, models, share, storage=storage)


CHATFLOWS: tuple[Chatflow, ...] = (
    _chatflow("Support assistant", "assistant", ("gpt-5-mini", "gpt-5-mini"), 24),
    _chatflow("Knowledge search", "retrieval", ("gpt-5-mini",), 17),
    _chatflow("Sales e-mail writer", "chat", ("claude-haiku-5", "gpt-5-mini"), 11),
    _chatflow("Ticket triage", "chat", ("gemini-3-flash", "gemini-3-flash"), 9),
    _chatflow("Code reviewer", "loop", ("claude-sonnet-5", "claude-haiku-5"), 7),
    _chatflow("Meeting summary", "chat", ("gpt-5", "gpt-5-mini"), 6),
    _chatflow("Research agent", "loop", ("gpt-5", "gpt-5-mini"), 5),
    _chatflow("Contract review", "retrieval", ("claude-sonnet-5",), 5),
    _chatflow("Document indexer", "indexing", ("gemini-3-flash",), 4, storage=True),
    _chatflow("Invoice extraction", "indexing", ("gpt-5-mini",), 3, storage=True),
    _chatflow("Onboarding guide", "assistant", ("claude-haiku-5", "claude-haiku-5"), 3),
    _chatflow("Report builder", "loop", ("claude-sonnet-5", "gpt-5-mini"), 2),
    _chatflow('Vertragsprüfung "DE"', "retrieval", ("claude-sonnet-5",), 2),
    _chatflow("HR policy bot", "retrieval", (BEDROCK_MODEL,), 1.2),
    _chatflow("Voice transcript cleaner", "chat", ("gemini-3-flash", "gemini-3-flash"), 0.8),
)
