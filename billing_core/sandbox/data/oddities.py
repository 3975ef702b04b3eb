"""The strange traces: each maker bends an ordinary one and corrects the intended facts where they change."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace

from billing_core.sandbox.data.catalog import BEDROCK_MODEL, CHATFLOWS, MODELS, NUMERIC_CUSTOMER
from billing_core.sandbox.data.plan import ObservationData, Oddity, TracePlan
from billing_core.sandbox.data.traces import Carriers, TraceContext, plain_trace, spend

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

CHAT, LOOP = (next(flow for flow in CHATFLOWS if flow.shape == shape) for shape in ("chat", "loop"))


def _last_call(plan: TracePlan) -> ObservationData:
    """The answer: the last row with a model's usage."""
    return next(row for row in reversed(plan.rows) if row.type == "GENERATION")


def _leftover(row: ObservationData, *, first: bool) -> ObservationData:
    """An earlier version of `row`, half way through; `first` serves it before the newer one at equal start."""
    older = copy(row)
    older.usage = {key: tokens // 2 for key, tokens in row.usage.items()}
    older.cost = {key: cost // 2 for key, cost in row.cost.items()}
    older.end = None
    older.written = row.written - 300
    older.version = -1 if first else 1
    return older


def _duplicate(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    plan.rows.append(_leftover(_last_call(plan), first=at.random.random() < 0.5))
    return plan


def _moved_duplicate(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    older = _leftover(_last_call(plan), first=True)
    older.start += MINUTE + int(at.random.random() * 20 * MINUTE)
    older.first_token = None
    plan.rows.append(older)
    return plan


def _postpone(row: ObservationData, by: int) -> None:
    row.start += by
    row.written += by
    row.end = None if row.end is None else row.end + by
    row.first_token = None if row.first_token is None else row.first_token + by


def _far_apart(at: TraceContext) -> TracePlan:
    """Somebody answered a question of the agent much later. The root closed long before."""
    plan = plain_trace(at)
    _postpone(_last_call(plan), 3 * HOUR + int(at.random.random() * 3 * DAY))
    return plan


def _across_midnight(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    call = _last_call(plan)
    midnight = (plan.rows[0].start // DAY + 1) * DAY
    _postpone(call, midnight - call.start + int(at.random.random() * 5000))
    return plan


def _cost_without_total(at: TraceContext) -> TracePlan:
    plan = plain_trace(replace(at, chatflow=LOOP))
    call = _last_call(plan)
    del call.cost["total"]
    call.cost["web_search"] = 10_000_000_000  # one cent; a third key is what makes Langfuse give up on the total
    plan.cost = (plan.cost or 0) + call.cost["web_search"]
    return plan


def _unpriced(at: TraceContext) -> TracePlan:
    return plain_trace(at, model=MODELS[BEDROCK_MODEL])


def _numeric_customer(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    plan.metadata.pop("stripeCustomerId", None)
    plan.metadata["customerId"] = int(NUMERIC_CUSTOMER)
    plan.customer = NUMERIC_CUSTOMER
    return plan


def _long_name(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    plan.chatflow_name = f"{plan.name} – " + "copy of " * 28 + f"the one of {at.user}"
    plan.metadata["chatflowName"] = plan.chatflow_name
    return plan


def _nested_metadata(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    plan.metadata |= {
        "client": {"app": "web", "build": [5, 0, 4]},
        "client.locale": "de-DE",
        "beta": True,
        "seat": "007",
    }
    return plan


def _synthetic_root(at: TraceContext) -> TracePlan:
    """From before v4: the server wrote a root of its own and hung the rest under it."""
    plan = plain_trace(at, carriers=Carriers.ALL if at.random.random() < 0.5 else Carriers.ROOT)
    root = _synthetic(plan)
    for row in plan.rows:
        if row.parent is None:
            row.parent, row.is_root = root.id, False
            row.carries = False
    plan.rows.append(root)
    return plan


def _synthetic(plan: TracePlan) -> ObservationData:
    first = plan.rows[0]
    return ObservationData(
        id=f"t-{plan.trace_id}",
        parent=None,
        type="SPAN",
        name=plan.name,
        start=first.start,
        end=None,
        written=first.written,
        carries=True,
        is_root=True,
    )


def _empty_trace(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    plan.rows = [_synthetic(plan)]
    plan.tokens_in = plan.tokens_out = plan.cost = None
    plan.flags = frozenset()
    return plan


def _not_customer_traffic(at: TraceContext, environment: str, name: str) -> TracePlan:
    plan = plain_trace(replace(at, chatflow=CHAT), carriers=Carriers.ROOT)
    plan.organization = plan.customer = plan.user = plan.session = plan.chatflow_id = plan.chatflow_name = None
    plan.ownership = plan.storage_gb = None
    plan.user_in_metadata = False
    plan.metadata = {"job": f"job-{at.random.getrandbits(32):08x}"}
    plan.environment, plan.name = environment, name
    plan.rows[0].name = name
    return plan


def _evaluator(at: TraceContext) -> TracePlan:
    return _not_customer_traffic(at, "langfuse-llm-as-a-judge", "Execute evaluator: helpfulness")


def _experiment(at: TraceContext) -> TracePlan:
    return _not_customer_traffic(at, "sdk-experiment", "experiment-item-run")


def _without_input(plan: TracePlan, reported: int) -> TracePlan:
    """Replace the answer's input count by nonsense: what was really read is unknown, the output stands."""
    call = _last_call(plan)
    received = sum(tokens for key, tokens in call.usage.items() if "input" in key)
    others = sum(row.usage.get("total", 0) for row in plan.rows if row is not call)
    output = call.usage["output"]
    written = call.usage["total"] - received
    plan.tokens_in = (plan.tokens_in or 0) - received if others else None
    plan.tokens_out = (plan.tokens_out or 0) - written + output
    plan.cost = (plan.cost or 0) - call.cost["total"] + call.cost["output"]
    call.usage = {"input": reported, "output": output, "total": reported + output}
    call.cost = {"output": call.cost["output"], "total": call.cost["output"]}
    plan.flags |= {"bad_usage"}
    return plan


def _negative_usage(at: TraceContext) -> TracePlan:
    return _without_input(plain_trace(replace(at, chatflow=LOOP)), -1)


def _absurd_usage(at: TraceContext) -> TracePlan:
    return _without_input(plain_trace(replace(at, chatflow=LOOP)), 4_000_000_000_000)


def _bad_storage(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    plan.metadata.pop("storageGB", None)
    plan.metadata["storageGb"] = "a lot" if at.random.random() < 0.5 else -2.5
    plan.storage_gb = None
    plan.flags |= {"bad_usage"}
    return plan


def _total_only(at: TraceContext) -> TracePlan:
    plan = plain_trace(replace(at, chatflow=CHAT))
    for row in plan.rows:
        if row.usage:
            row.usage = {"total": row.usage["total"]}
            row.cost = {"total": row.cost["total"]}
            plan.tokens_other = (plan.tokens_other or 0) + row.usage["total"]
    plan.tokens_in = plan.tokens_out = None
    return plan


def _legacy_credits(plan: TracePlan, at: TraceContext) -> tuple[int, int, int]:
    """As the earlier system counted: whole credits, rounded up part by part."""
    del plan
    return 40 + int(at.random.random() * 900), 5 + int(at.random.random() * 60), int(at.random.random() * 3)


def _legacy_dotted(at: TraceContext) -> TracePlan:
    plan = plain_trace(at, carriers=Carriers.ROOT)
    parts = _legacy_credits(plan, at)
    plan.metadata["billing_status"] = "processed"
    for name, amount in zip(("ai_tokens", "compute", "storage"), parts, strict=True):
        plan.metadata[f"billing_details.breakdown.{name}.base_credits"] = amount
    plan.metadata["billing_details.total_credits"] = sum(parts)
    return _billed_before(plan, parts)


def _legacy_nested(at: TraceContext) -> TracePlan:
    plan = plain_trace(at, carriers=Carriers.ROOT)
    parts = _legacy_credits(plan, at)
    plan.metadata["billing_status"] = "processed"
    plan.metadata["billing_details"] = {
        "processed_by": "billing sync of the earlier system",
        "breakdown": {
            name: {"base_credits": amount, "margin": 1.2, "credits_with_margin": amount * 1.2}
            for name, amount in zip(("ai_tokens", "compute", "storage"), parts, strict=True)
        },
        "total_credits": sum(parts),
    }
    return _billed_before(plan, parts)


def _billed_before(plan: TracePlan, parts: tuple[int, int, int]) -> TracePlan:
    ai_tokens, compute, storage = parts
    plan.legacy_status = "processed"
    plan.legacy_credits = (str(ai_tokens), str(compute), str(storage), str(sum(parts)))
    return plan


def _legacy_error(at: TraceContext) -> TracePlan:
    plan = plain_trace(at, carriers=Carriers.ROOT)
    plan.legacy_status = "error"
    plan.legacy_error = "No such customer: 'cus_gone'"
    plan.metadata |= {"billing_status": plan.legacy_status, "stripeError": plan.legacy_error}
    return plan


def _conflicting_users(at: TraceContext) -> TracePlan:
    plan = plain_trace(at, carriers=Carriers.ALL)
    plan.user_in_metadata = False
    plan.metadata.pop("userId", None)
    _last_call(plan).user = "somebody.else@" + at.user.partition("@")[2]
    plan.flags |= {"conflicting_attributes"}
    return plan


def _double_count(at: TraceContext) -> TracePlan:
    """The agent reports its children's sum as its own; Langfuse adds both, and so must a reader that says so."""
    plan = plain_trace(replace(at, chatflow=LOOP))
    calls = [row for row in plan.rows if row.usage]
    received = sum(tokens for row in calls for key, tokens in row.usage.items() if "input" in key)
    written = sum(row.usage["total"] for row in calls) - received
    cost = sum(row.cost["total"] for row in calls)
    root = plan.rows[0]
    model = calls[-1].model
    assert model is not None  # noqa: S101 - rows with usage name their model
    spend(plan, root, model, {"input": received, "output": written})
    plan.cost = 2 * cost
    root.cost = {"total": cost}
    plan.flags |= {"double_count_suspect"}
    return plan


def _late(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    _last_call(plan).written += 5 * MINUTE + int(at.random.random() * 9 * HOUR)
    return plan


def _unfinished(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    plan.rows[0].end = None
    return plan


def _app_root(at: TraceContext) -> TracePlan:
    plan = plain_trace(at, carriers=Carriers.ROOT)
    plan.rows[0].parent = f"{at.random.getrandbits(64):016x}"
    return plan


def _no_organization(at: TraceContext) -> TracePlan:
    plan = plain_trace(at)
    del plan.metadata["organizationId"]
    plan.organization = None
    return plan


MAKERS: dict[Oddity, Callable[[TraceContext], TracePlan]] = {
    Oddity.DUPLICATE: _duplicate,
    Oddity.MOVED_DUPLICATE: _moved_duplicate,
    Oddity.FAR_APART: _far_apart,
    Oddity.ACROSS_MIDNIGHT: _across_midnight,
    Oddity.COST_WITHOUT_TOTAL: _cost_without_total,
    Oddity.UNPRICED: _unpriced,
    Oddity.NUMERIC_CUSTOMER: _numeric_customer,
    Oddity.LONG_NAME: _long_name,
    Oddity.NESTED_METADATA: _nested_metadata,
    Oddity.SYNTHETIC_ROOT: _synthetic_root,
    Oddity.EMPTY_TRACE: _empty_trace,
    Oddity.EVALUATOR: _evaluator,
    Oddity.EXPERIMENT: _experiment,
    Oddity.NEGATIVE_USAGE: _negative_usage,
    Oddity.ABSURD_USAGE: _absurd_usage,
    Oddity.BAD_STORAGE: _bad_storage,
    Oddity.TOTAL_ONLY: _total_only,
    Oddity.LEGACY_DOTTED: _legacy_dotted,
    Oddity.LEGACY_NESTED: _legacy_nested,
    Oddity.LEGACY_ERROR: _legacy_error,
    Oddity.CONFLICTING_USERS: _conflicting_users,
    Oddity.DOUBLE_COUNT: _double_count,
    Oddity.LATE: _late,
    Oddity.UNFINISHED: _unfinished,
    Oddity.APP_ROOT: _app_root,
    Oddity.NO_ORGANIZATION: _no_organization,
}
