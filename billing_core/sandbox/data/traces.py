"""How an ordinary trace comes about: which rows an application writes, with what usage, cost and timing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from billing_core.sandbox.data.catalog import EMBEDDING_MODEL, MODELS, Chatflow, Model, Organization
from billing_core.sandbox.data.plan import ObservationData, TracePlan

LONGEST_TRACE = 240_000
SHORTEST_TRACE = 300
"""Milliseconds."""


class Carriers(StrEnum):
    """Which rows carry the trace's attributes (reference, section 1.6)."""

    ROOT = "root"
    ALL = "all"
    ALL_BUT_ROOT = "all_but_root"


@dataclass(slots=True)
class TraceContext:
    """Who runs what, and when (milliseconds since 1970)."""

    random: Random
    start: int
    organization: Organization
    user: str
    chatflow: Chatflow
    growth: float
    """Factor on tokens: usage grows over the months."""


@dataclass(frozen=True, slots=True)
class ObservationShape:
    """One observation of a shape: `parent` is an index into the shape, `weight` its part of the trace's time."""

    type: str
    name: str
    parent: int | None = 0
    weight: float = 0.0
    role: str = "work"
    """`answer` and `plan` are model calls, `embed` an embedding; everything else costs nothing."""


SHAPES: dict[str, tuple[ObservationShape, ...]] = {
    "chat": (
        ObservationShape("SPAN", "", None),
        ObservationShape("SPAN", "load history", 0, 0.05),
        ObservationShape("GENERATION", "draft", 0, 0.3, "plan"),
        ObservationShape("GENERATION", "answer", 0, 0.6, "answer"),
        ObservationShape("EVENT", "answer sent", 0, 0.0, "event"),
    ),
    "retrieval": (
        ObservationShape("CHAIN", "", None),
        ObservationShape("RETRIEVER", "search documents", 0, 0.15),
        ObservationShape("EMBEDDING", "embed question", 1, 0.4, "embed"),
        ObservationShape("TOOL", "rerank", 0, 0.1),
        ObservationShape("GENERATION", "answer", 0, 0.75, "answer"),
    ),
    "assistant": (
        ObservationShape("AGENT", "", None),
        ObservationShape("GUARDRAIL", "check input", 0, 0.03),
        ObservationShape("GENERATION", "plan", 0, 0.2, "plan"),
        ObservationShape("RETRIEVER", "search help centre", 0, 0.1),
        ObservationShape("EMBEDDING", "embed question", 3, 0.4, "embed"),
        ObservationShape("TOOL", "look up account", 0, 0.12),
        ObservationShape("GENERATION", "answer", 0, 0.55, "answer"),
    ),
    "loop": (
        ObservationShape("AGENT", "", None),
        ObservationShape("GENERATION", "plan", 0, 0.1, "plan"),
        ObservationShape("TOOL", "run query", 0, 0.15),
        ObservationShape("GENERATION", "reflect", 0, 0.15, "plan"),
        ObservationShape("TOOL", "open page", 0, 0.15),
        ObservationShape("GENERATION", "reflect", 0, 0.15, "plan"),
        ObservationShape("GENERATION", "answer", 0, 0.3, "answer"),
    ),
    "indexing": (
        ObservationShape("CHAIN", "", None),
        ObservationShape("TOOL", "split document", 0, 0.1),
        ObservationShape("EMBEDDING", "embed chunks", 0, 0.3, "embed"),
        ObservationShape("EMBEDDING", "embed chunks", 0, 0.3, "embed"),
        ObservationShape("GENERATION", "describe document", 0, 0.2, "answer"),
        ObservationShape("SPAN", "write index", 0, 0.1),
    ),
}

FAILURE_EVERY = 50
"""One trace in so many has a model call that failed."""

FAILURES = (
    "The model did not answer within 60 seconds",
    "429: the provider's rate limit is reached",
    "The answer was stopped by the provider's content filter",
    "503: the model is overloaded",
)
"""What went wrong at the model, as applications write it into an observation's status message."""

TYPICAL_SECONDS = {"chat": 4.0, "retrieval": 6.0, "assistant": 9.0, "loop": 38.0, "indexing": 55.0}


def plain_trace(at: TraceContext, *, carriers: Carriers | None = None, model: Model | None = None) -> TracePlan:
    """An ordinary trace: complete, written seconds after it ended. `model` takes the place of the flow's own."""
    draw = at.random.random
    if carriers is None:
        lot = draw()
        carriers = Carriers.ROOT if lot < 0.4 else Carriers.ALL if lot < 0.87 else Carriers.ALL_BUT_ROOT
    plan = _trace_of(at)
    seconds = TYPICAL_SECONDS[at.chatflow.shape] * at.random.lognormvariate(0, 0.75)
    length = int(min(max(seconds * 1000, SHORTEST_TRACE), LONGEST_TRACE))
    _add_rows(plan, at, length, carriers, model)
    _fail(plan)
    return plan


def _trace_of(at: TraceContext) -> TracePlan:
    random, organization, flow = at.random, at.organization, at.chatflow
    draw = random.random
    trace_id = f"{random.getrandbits(128):032x}"
    lot = draw()
    environment = "production" if lot < 0.86 else "default" if lot < 0.94 else "staging"
    own_key = draw() < organization.own_key_share
    ownership = "user" if own_key else "platform" if draw() < 0.5 else None
    metadata: dict[str, Any] = {"organizationId": organization.id}
    if organization.customer is not None:
        metadata["stripeCustomerId" if draw() < 0.85 else "customerId"] = organization.customer
    metadata["chatflowid" if draw() < 0.8 else "chatflowId"] = flow.id
    if draw() < 0.9:
        metadata["chatflowName"] = flow.name
    if ownership is not None:
        metadata["aiCredentialsOwnership"] = ownership
    storage = None
    if flow.storage and draw() < 0.8:
        storage = f"{random.lognormvariate(-4, 1.2):.6f}"
        # numbers and texts both occur; a number leaves as JSON writes it
        metadata["storageGb" if draw() < 0.7 else "storageGB"] = float(storage) if draw() < 0.6 else storage
    user_in_metadata = draw() < 0.12
    if user_in_metadata:
        metadata["userId"] = at.user
    two_hours = at.start // 7_200_000
    return TracePlan(
        trace_id=trace_id,
        rows=[],
        organization=organization.id,
        customer=organization.customer,
        user=at.user,
        session=f"session-{two_hours}-{at.user}" if draw() < 0.9 else None,
        chatflow_id=flow.id,
        chatflow_name=metadata.get("chatflowName"),
        name=flow.name,
        environment=environment,
        metadata=metadata,
        user_in_metadata=user_in_metadata,
        ownership=ownership,
        storage_gb=storage,
    )


def _add_rows(plan: TracePlan, at: TraceContext, length: int, carriers: Carriers, model: Model | None) -> None:
    random = at.random
    draw = random.random
    end_of_all = at.start + length
    clock = at.start
    rows = plan.rows
    flow = at.chatflow
    for step in SHAPES[flow.shape]:
        parent = None if step.parent is None else rows[step.parent]
        if parent is None:
            start, end = at.start, end_of_all
        elif step.parent == 0:
            start = clock + int(draw() * 20)
            clock = min(start + int(length * step.weight * (0.9 + 0.1 * draw())), end_of_all)
            start, end = min(start, clock), clock
        else:
            start = parent.start
            end = start + int(((parent.end or start) - start) * step.weight)
        row = ObservationData(
            id=f"{random.getrandbits(64):016x}",
            parent=None if parent is None else parent.id,
            type=step.type,
            name=step.name or plan.name,
            start=start,
            end=None if step.role == "event" else end,
            written=end + 400 + int(draw() * 7000),
            carries=carriers is Carriers.ALL or (carriers is Carriers.ROOT) == (parent is None),
            is_root=parent is None,
        )
        rows.append(row)
        if step.role == "answer":
            used = model or MODELS[flow.models[0]]
            reads = 1500 if flow.shape == "chat" else 3800
            _call_model(plan, row, used, at, reads, 420)
        elif step.role == "plan":
            used = model or MODELS[flow.models[-1]]
            _call_model(plan, row, used, at, 900, 140)
        elif step.role == "embed":
            reads = 9000 if flow.shape == "indexing" else 40
            spend(plan, row, MODELS[EMBEDDING_MODEL], {"input": _around(random, reads * at.growth)})


def _fail(plan: TracePlan) -> None:
    """Let one model call of every fiftieth trace fail. The trace's id is the lot: nothing else is drawn for it."""
    lot, rest = divmod(int(plan.trace_id[-12:], 16), FAILURE_EVERY)
    if rest == 0:
        calls = [row for row in plan.rows if row.type == "GENERATION"]
        call = calls[lot % len(calls)]
        call.level, call.status = "ERROR", FAILURES[lot // len(calls) % len(FAILURES)]


def _around(random: Random, typical: float) -> int:
    return 1 + int(typical * random.lognormvariate(0, 0.7))


def _call_model(plan: TracePlan, row: ObservationData, model: Model, at: TraceContext, reads: int, writes: int) -> None:
    """Invent one model call: input, part of it from the cache, output, part of it reasoning; buckets never overlap."""
    random = at.random
    draw = random.random
    usage = {"input": _around(random, reads * at.growth), "output": _around(random, writes * at.growth)}
    lot = draw()
    if model.cached_key is not None and lot < 0.35:
        usage[model.cached_key] = int(usage["input"] * 0.6)
        usage["input"] -= usage[model.cached_key]
        if model.written_key is not None and lot < 0.2:
            usage[model.written_key] = 256 + int(draw() * 1800)
    if model.reasoning_key is not None and draw() < 0.4:
        usage[model.reasoning_key] = 64 * (1 + int(draw() * 12))
    if row.end is not None:
        row.first_token = row.start + int((row.end - row.start) * (0.1 + 0.4 * draw()))
    spend(plan, row, model, usage)


def spend(plan: TracePlan, row: ObservationData, model: Model, usage: dict[str, int]) -> None:
    """Book usage on a row and on the trace's intended sums; an unknown model leaves the cost unknown."""
    row.model = model
    received = written = 0
    for key, tokens in usage.items():
        if "input" in key:
            received += tokens
        else:
            written += tokens
    row.usage = {**usage, "total": received + written}
    plan.tokens_in = (plan.tokens_in or 0) + received
    if "output" in usage:
        plan.tokens_out = (plan.tokens_out or 0) + written
    if not model.prices:
        plan.flags |= {"unpriced"}
        return
    prices = model.prices
    row.cost = {key: prices[key] * tokens for key, tokens in usage.items()}
    total = sum(row.cost.values())
    row.cost["total"] = total
    plan.cost = (plan.cost or 0) + total
