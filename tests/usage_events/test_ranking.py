"""What a chart leaves out is "all others", and nothing is lost on the way."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing_core.types import Credits
from billing_core.usage_events.model import BreakdownRow
from billing_core.usage_events.ranking import added, disagreements, ranking


def held(ai: str, compute: str = "0", storage: str = "0") -> Credits:
    parts = [Decimal(part) for part in (ai, compute, storage)]
    return Credits(ai_tokens=parts[0], compute=parts[1], storage=parts[2], total=sum(parts, Decimal(0)))


def piece(name: str, ai: str, events: int = 1) -> BreakdownRow:
    return BreakdownRow((name,), events, held(ai))


def test_the_largest_are_shown_and_the_rest_is_all_others():
    slices = [piece("a", "5", 2), piece("b", "3"), piece("c", "1"), piece("d", "1")]
    found = ranking(slices, held("10"), 5, shown=2)
    assert [one.values for one in found.largest] == [("a",), ("b",)]
    assert found.others == BreakdownRow((), 2, held("2"))


def test_all_others_holds_what_was_not_even_read():
    assert ranking([piece("a", "5")], held("100"), 50, shown=10).others == BreakdownRow((), 49, held("95"))


def test_there_are_no_others_when_everything_is_shown():
    assert ranking([piece("a", "5")], held("5"), 1, shown=10).others is None


@given(st.lists(st.decimals(min_value=0, max_value="999999999999", places=6), max_size=30), st.integers(0, 10))
def test_the_shown_and_the_others_always_add_up_to_the_whole(values, shown):
    slices = [piece(str(n), str(value)) for n, value in enumerate(sorted(values, reverse=True))]
    whole = added(slices)
    found = ranking(slices, whole, len(slices), shown=shown)
    assert added([*found.largest, *([found.others] if found.others else [])]) == whole


def test_a_chart_that_is_off_by_the_last_digit_is_named():
    total = Decimal("8231255.810001")
    parts = {"days": [Decimal("8231255.81"), Decimal("0.000001")], "heat": [Decimal("8231255.81")]}
    assert disagreements(total, parts) == ["heat"]
    assert disagreements(Decimal(0), {"nothing": []}) == []
