"""A question compiled once and run with bound values is answered like the same question written out with literals."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.access import Scope
from billing_core.exports.event_slices import in_order, unordered
from billing_core.ledger import explore_queries, history, queries, statistics
from billing_core.ledger.compiled import (
    SHAPES,
    SHORT,
    Bound,
    _compile,
    among,
    ask,
    bound_decimal,
    bound_list,
    bound_number,
    bound_text,
    bound_time,
    compiled,
)
from billing_core.ledger.directory import who_pays
from billing_core.ledger.period_usage import GIVEN, customers_and_usage, periods_table
from billing_core.ledger.queries import DIMENSIONS, PART_COLUMNS, ClosedSpan, Selection, Snapshot
from tests.examples import examples
from tests.factories import NOON, events_table, ledger_at, usage_row

ODD = (
    "org_a",
    "O'Neill",
    'say "so"',
    "100%",
    "%s",
    "{p0}",
    "$1",
    "?",
    "a;b--",
    "\\",
    "naïve",
    "日本",
    "🙂",
    "",
    " ",
    "Ä",
)
"""Texts that a query written by hand breaks on."""

BERLIN, LORD_HOWE = ZoneInfo("Europe/Berlin"), ZoneInfo("Australia/Lord_Howe")
EVERYONE, NOW = Scope(None), Snapshot(3, 3)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """Events with odd names over a change of the clock; some were changed since, some after their month was closed."""
    rows = [
        usage_row(
            id=f"{text}-{n}",
            timestamp=NOON - timedelta(hours=9 * n),
            organization_id=text if n % 5 else None,
            customer_id=ODD[n % 7],
            user_id=text,
            chatflow_id=ODD[n % 3] or None,
            chatflow_name=text,
            models=[text, "gpt-5"] if text else [],
            tokens_total=1000 + 7 * n,
            storage_gb=Decimal(n) / 8,
        )
        for n, text in enumerate(ODD)
    ]
    made = ledger_at(tmp_path_factory.mktemp("compiled") / "billing.duckdb", rows)
    with made.engine.transaction() as writer:
        span = ClosedSpan(2, *OCTOBER)
        writer.append_from("closed_events", queries.to_freeze(Selection(EVERYONE, made.snapshot(), *OCTOBER), span.seq))
        writer.rows("UPDATE events SET accounted_at = TIMESTAMP '2026-11-02 08:00:00' WHERE tokens_total % 3 = 0")
    made.book(events_table([{**row, "tokens_total": 5000, "cost_usd": None} for row in rows[::4]]), run_id="later")
    yield made
    made.engine.close()


OCTOBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
TIMES = st.datetimes(datetime(2026, 10, 24), datetime(2026, 11, 3), timezones=st.sampled_from((UTC, BERLIN))) | (
    st.sampled_from((*OCTOBER, NOON, NOON - timedelta(hours=9)))
)
TEXTS = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
LISTS = st.lists(TEXTS, max_size=2 * SHORT).map(tuple)
LARGEST = Decimal(10**30 - 1).scaleb(-6)
AMOUNTS = (
    st.none() | st.decimals(-LARGEST, LARGEST, places=6) | st.sampled_from(("1E+1", "1.50", "-1E-6", "0")).map(Decimal)
)
MONTHS = (ClosedSpan(2, *OCTOBER), ClosedSpan(3, datetime(2026, 9, 1, tzinfo=UTC), OCTOBER[0]))
SNAPSHOTS = st.builds(
    Snapshot, st.integers(0, 4), st.just(3), st.sampled_from(((), (), (), MONTHS[:1], MONTHS)), st.booleans()
)
FILTERED = ("organization_id", "customer_id", "user_id", "chatflow_id", "environment", "sync_status")
SELECTIONS = st.builds(
    Selection,
    scope=st.builds(Scope, st.none() | LISTS),
    snapshot=SNAPSHOTS,
    start=st.none() | TIMES,
    end=st.none() | TIMES,
    any_of=st.lists(st.tuples(st.sampled_from(FILTERED), LISTS), max_size=2).map(tuple),
    models=st.lists(TEXTS, max_size=3).map(tuple),
    amount_min=AMOUNTS,
    amount_max=AMOUNTS,
    search=st.none() | TEXTS,
    causes=st.lists(TEXTS, max_size=2).map(tuple),
    held=st.none() | st.booleans(),
    stages=st.lists(st.sampled_from(("pending", "held")), max_size=2).map(tuple),
    charged=st.lists(st.sampled_from(PART_COLUMNS), max_size=1).map(tuple),
    without=st.lists(st.sampled_from(("user_id", "models")), max_size=1).map(tuple),
)
ZONES = st.sampled_from((UTC, BERLIN, LORD_HOWE)).map(
    lambda zone: zone if isinstance(zone, ZoneInfo) else ZoneInfo("UTC")
)
BOUNDS = (datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 11, 5, tzinfo=UTC))

GROUPINGS = st.builds(
    explore_queries.by_period,
    st.lists(st.sampled_from(tuple(explore_queries.STORED)), max_size=2, unique=True).map(tuple),
    st.sampled_from(("day", "week", "month")),
    ZONES,
    st.just(BOUNDS),
    st.sampled_from((timedelta(), timedelta(days=31, hours=1))),
) | st.just(explore_queries.Grouping(("user",)))
GROUPINGS |= st.builds(
    explore_queries.showing,
    st.just(explore_queries.Grouping(("user", "status"))),
    st.lists(st.tuples(TEXTS, st.sampled_from(("pending", "error"))), min_size=1, max_size=3),
)

QUESTIONS = st.one_of(
    st.builds(
        queries.page,
        SELECTIONS,
        sort=st.sampled_from(("timestamp", "amount_usd", "flags", "trace_url", "user_id")),
        descending=st.booleans(),
        limit=st.integers(0, 9),
        offset=st.integers(0, 9),
    ),
    st.builds(
        lambda make, selection: make(selection),
        st.sampled_from(
            (
                queries.totals,
                queries.extent,
                statistics.sums,
                statistics.counts,
                statistics.models,
                statistics.customers,
                statistics.token_classes,
                who_pays,
                history.pairs,
            )
        ),
        SELECTIONS,
    ),
    st.builds(
        lambda make, selection, zone: make(selection, zone, *BOUNDS),
        st.sampled_from(
            (
                queries.daily,
                queries.by_hour_of_week,
                statistics.credits_per_day,
                statistics.active_users,
                statistics.new_users,
            )
        ),
        SELECTIONS,
        ZONES,
    ),
    st.builds(queries.daily, SELECTIONS, ZONES, st.just(BOUNDS[0]), st.just(BOUNDS[1]), only_late=st.just(True)),
    st.builds(statistics.latency, SELECTIONS, by_organization=st.booleans()),
    st.builds(
        queries.breakdown,
        SELECTIONS,
        st.lists(st.sampled_from(tuple(DIMENSIONS)), min_size=1, max_size=2, unique=True),
        limit=st.none() | st.integers(0, 5),
    ),
    st.builds(queries.facet, SELECTIONS, st.sampled_from(tuple(DIMENSIONS)), limit=st.integers(0, 5)),
    st.builds(queries.in_time_order, SELECTIONS, limit=st.integers(0, 9), offset=st.integers(0, 9)),
    st.builds(queries.to_freeze, SELECTIONS, st.integers(1, 9)),
    st.builds(in_order, SELECTIONS, st.just(("id", "user_id")), st.integers(0, 9)),
    st.builds(unordered, SELECTIONS, st.just(("id", "user_id"))),
    st.builds(
        lambda make, scope, event, *more: make(scope, event, *more),
        st.sampled_from((queries.event, queries.revisions)),
        st.builds(Scope, st.none() | LISTS),
        st.sampled_from([f"{text}-{n}" for n, text in enumerate(ODD)]),
    ),
    st.builds(
        queries.closed_states,
        st.builds(Scope, st.none() | LISTS),
        st.sampled_from([f"{text}-{n}" for n, text in enumerate(ODD)]),
        st.sampled_from((MONTHS[:1], MONTHS)),
    ),
    st.builds(history.slices, SELECTIONS, st.none() | TEXTS, TIMES),
    st.builds(
        explore_queries.sums,
        SELECTIONS,
        GROUPINGS,
        st.sampled_from(((), explore_queries.SUMMED)),
        is_rated=st.booleans(),
    ),
    st.builds(
        lambda make, *asked: make(*asked),
        st.sampled_from((explore_queries.sums_by_model, explore_queries.mixed)),
        SELECTIONS,
        GROUPINGS,
        st.builds(explore_queries.Splitting, st.booleans(), st.booleans()),
    ),
    st.builds(explore_queries.spread, SELECTIONS, GROUPINGS, by_model=st.booleans(), with_latency=st.booleans()),
)


def written_out(ledger, question, given=None):
    """The answer to the same question with its values as literals, compiled anew."""
    text = str(ibis.to_sql(question.expression(), dialect="duckdb"))
    with ledger.engine._cursor() as cursor:
        for name, rows in (given or {}).items():
            cursor.register(name, rows)
        return cursor.sql(text).to_arrow_table()


def kinds(table):
    """Columns with their types, whole numbers of any width being one."""
    return [(f.name, "integer" if pa.types.is_integer(f.type) else f.type) for f in table.schema]


def in_any_order(table):
    return sorted(map(repr, table.to_pylist()))


@settings(max_examples=examples(40))
@given(question=QUESTIONS)
def test_a_question_with_bound_values_is_answered_like_one_with_literals(ledger, question):
    found, expected = ledger.engine.read(question), written_out(ledger, question)
    assert kinds(found) == kinds(expected)
    assert in_any_order(found) == in_any_order(expected)


LONG = tuple(f"o{n}" for n in range(2 * SHORT))


def _listed(values):
    t = ibis.table({"value": "string"}, name="asked")
    return t.filter(among(t.value, values))


def _larger(value: Bound):
    t = ibis.table({"amount": "decimal(38, 8)"}, name="asked")
    return t.filter(t.amount >= value.scalar)


def _since(value: Bound):
    t = ibis.table({"at": "timestamp(6)"}, name="asked")
    return t.filter(t["at"] >= value.scalar)


def _said(value: Bound, number: Bound):
    t = ibis.table({"value": "string"}, name="asked")
    return t.limit(1).select(said=value.scalar, number=number.scalar)


def asked(ledger, question, **columns):
    return ledger.engine.read(question, {"asked": pa.table(columns)})


@given(st.lists(TEXTS | st.none(), max_size=9), st.lists(TEXTS, max_size=3 * SHORT))
def test_a_list_holds_what_python_says_it_holds(ledger, stored, wanted):
    found = asked(ledger, ask(_listed, bound_list(wanted)), value=pa.array(stored, pa.string()))
    assert found["value"].to_pylist() == [one for one in stored if one in wanted]


EXACT = st.decimals(-LARGEST, LARGEST, places=8) | st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(-(10**20), 10**20), st.integers(-8, 9)
)


@given(st.lists(EXACT, max_size=9), EXACT)
def test_a_decimal_is_compared_to_its_last_digit(ledger, stored, least):
    found = asked(ledger, ask(_larger, bound_decimal(least, 8)), amount=pa.array(stored, pa.decimal128(38, 8)))
    assert found["amount"].to_pylist() == [one for one in stored if one >= least]


@given(AMOUNTS, AMOUNTS)
def test_amounts_are_limited_exactly_however_many_digits_a_limit_has(ledger, least, most):
    def ids(**limits):
        found = ledger.engine.read(queries.in_time_order(Selection(EVERYONE, NOW, **limits), limit=99, offset=0))
        amounts = [row["credits_total"] * row["credit_price_usd"] for row in found.to_pylist()]
        return dict(zip(found["id"].to_pylist(), amounts, strict=True))

    wanted = {
        one for one, amount in ids().items() if (least is None or amount >= least) and (most is None or amount <= most)
    }
    assert set(ids(amount_min=least, amount_max=most)) == wanted


@given(st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)), max_size=9), TIMES)
def test_a_time_is_the_same_moment_in_every_zone(ledger, stored, since):
    found = asked(ledger, ask(_since, bound_time(since)), at=pa.array(stored, pa.timestamp("us")))
    assert found["at"].to_pylist() == [one for one in stored if one.replace(tzinfo=UTC) >= since]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63), 2**63 - 1))
def test_any_text_and_number_arrives_as_it_is(ledger, text, number):
    found = asked(ledger, ask(_said, bound_text(text), bound_number(number)), value=["one row"])
    assert found.to_pylist() == [{"said": text, "number": number}]


@given(st.text(min_size=1), st.lists(st.characters(), min_size=1, max_size=2 * SHORT))
def test_text_that_no_ledger_can_hold_is_found_nowhere_and_breaks_nothing(ledger, text, others):
    stored = pa.array(["a", "\ufffd", "?", ""], pa.string())
    for half in ("\ud800", f"{text}\udcff"):
        wanted = Selection(EVERYONE, NOW, any_of=(("user_id", (half, *others)),), search=half)
        assert ledger.engine.read(queries.totals(wanted)).num_rows == 0
        assert asked(ledger, ask(_listed, bound_list([half])), value=stored).num_rows == 0


def test_two_people_share_a_shape_only_if_their_scopes_have_one_form():
    def shape(organizations, **more):
        return compiled(queries.totals(Selection(Scope(organizations), Snapshot(1, 1), **more)), "duckdb")[0]

    assert shape(("org_a",)) is shape(("org_b",))
    assert shape(LONG) is shape(LONG[:-1])
    assert len({shape(one) for one in (None, (), ("org_a",), ("org_a", "org_b"), LONG)}) == 5
    assert shape(("org_a",), search="x") is not shape(("org_a",))


def test_what_a_limited_reader_may_see_is_part_of_every_shape_and_never_of_its_text():
    for make in (queries.totals, queries.extent, statistics.sums, history.pairs, who_pays):
        query, values = compiled(make(Selection(Scope(("org_secret",)), Snapshot(1, 1))), "duckdb")
        assert "org_secret" in values
        assert "organization_id" in query.text
        assert "org_secret" not in query.text


def test_other_values_are_not_compiled_again(ledger):
    def read(n):
        selection = Selection(
            Scope((f"org_{n}",)),
            Snapshot(1, 1),
            start=NOON - timedelta(days=n),
            end=NOON,
            search=f"text {n}",
            any_of=(("user_id", tuple(LONG[: n + SHORT + 1])),),
            amount_min=Decimal(n),
        )
        ledger.engine.read(queries.page(selection, sort="timestamp", descending=True, limit=n, offset=n))

    read(1)
    before = _compile.cache_info().misses
    for n in range(2, 6):
        read(n)
    assert _compile.cache_info().misses == before
    assert _compile.cache_info().maxsize == SHAPES


def test_what_is_no_shape_and_no_bound_value_is_refused():
    names = LONG
    for odd in (5, 1.5, Decimal(1), NOON, ["a"], {"a": 1}):
        with pytest.raises(TypeError, match="neither a bound value nor part of its shape"):
            compiled(ask(_listed, odd), "duckdb")
    with pytest.raises(TypeError, match="arguments"):
        ask(lambda: _listed(names))
    with pytest.raises(TypeError, match="looks at a value"):
        compiled(ask(_curious, bound_text("")), "duckdb")


def _curious(value: Bound):
    return _listed((value,) if value else ())


def test_a_period_of_each_customer_is_bound_like_the_rest(ledger):
    question = customers_and_usage(Selection(Scope(("org_a", "O'Neill")), Snapshot(1, 1)), NOON)
    given = {GIVEN: periods_table([("org_a", NOON - timedelta(days=9), NOON)])}
    plain = {
        GIVEN: given[GIVEN].cast(
            pa.schema(
                [("customer_id", pa.string()), *((name, pa.timestamp("us")) for name in ("period_start", "period_end"))]
            )
        )
    }
    found = in_any_order(ledger.engine.read(question, given))
    assert found == in_any_order(written_out(ledger, question, plain))
    assert found
