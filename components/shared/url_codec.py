"""The state of a page as URL parameters and back. Pure: a state is a frozen dataclass, a codec says how each of its
fields stands in the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs, urlencode

from billing_core.errors import BadParameter
from components.shared.periods import Period

S = TypeVar("S")

Query = Mapping[str, Sequence[str]]
"""Parameters of a URL: every value of each."""


def _texts(value: Any) -> list[str]:
    return list(value) or [""] if isinstance(value, tuple) else ["1" if value is True else str(value)]


@dataclass(frozen=True, slots=True)
class Value:
    """How one field stands in the URL: `read` gets the texts of its parameter and raises `ValueError` for others than
    `accepted` says. `write` gives the texts of a value that is not the usual one.
    """

    read: Callable[[Sequence[str]], Any]
    accepted: str = "text"
    write: Callable[[Any], list[str]] = _texts


def text() -> Value:
    """Any text."""
    return Value(lambda values: values[-1])


def several(most: int | None = None) -> Value:
    """Any texts, each once, as a tuple of `most` at the most."""
    return Value(lambda values: tuple(dict.fromkeys(one for one in values if one))[:most])


def day() -> Value:
    """A day of the calendar."""
    return Value(lambda values: date.fromisoformat(values[-1]), "a day such as 2026-10-31")


def flag(yes: str = "1", no: str = "0") -> Value:
    """A yes or no, by the words `yes` and `no`."""
    return one_of({yes: True, no: False})


def number(low: int, high: int) -> Value:
    """A whole number between `low` and `high`."""

    def read(values: Sequence[str]) -> int:
        said = values[-1]
        if said.isascii() and said.isdigit() and len(said) <= len(str(high)) and low <= int(said) <= high:
            return int(said)
        raise ValueError(said)

    return Value(read, f"a whole number from {low:,} to {high:,}")


Offered = Mapping[str, Any] | Iterable[Any] | Callable[[], Iterable[Any]]
"""Values to choose from; a mapping has them by what stands in the URL, where that differs."""


def _by_text(offered: Offered) -> Mapping[str, Any]:
    if isinstance(offered, Mapping):
        return offered
    return {str(one): one for one in (offered if isinstance(offered, Iterable) else offered())}


def one_of(offered: Offered, *, accepted: str | None = None) -> Value:
    """One of the values `offered`; `accepted` says in words which those are, where they are too many to list."""

    def read(values: Sequence[str]) -> Any:
        known = _by_text(offered)
        if values[-1] not in known:
            raise ValueError(values[-1])
        return known[values[-1]]

    listed = accepted or f"one of: {', '.join(_by_text(offered))}"
    return Value(read, listed, lambda value: several_of(offered).write((value,)))


def several_of(offered: Offered) -> Value:
    """Any of the values `offered`, each once, as a tuple."""

    def read(values: Sequence[str]) -> tuple[Any, ...]:
        known = _by_text(offered)
        if unknown := [one for one in values if one and one not in known]:
            raise ValueError(unknown[0])
        return tuple(dict.fromkeys(known[one] for one in values if one))

    def write(value: tuple[Any, ...]) -> list[str]:
        texts = {one: said for said, one in _by_text(offered).items()}
        return [texts[one] for one in value] or [""]

    return Value(read, "names that are offered here", write)


PERIOD_VALUES = {"period": one_of(Period), "first_day": day(), "last_day": day()}
"""How the fields of a `PeriodChoice` stand in a URL."""

SPAN_NAMES = {"period": "span", "first_day": "from_day", "last_day": "to_day"}
"""Their names on most pages."""


@dataclass(frozen=True)
class Codec(Generic[S]):
    """The parameters of one page: how each field stands in the URL, under `names` where that differs from the field's.

    What equals `usual` does not stand in the URL; what the URL has wrong counts as not said (see `refused`).
    """

    usual: S
    values: Mapping[str, Value]
    names: Mapping[str, str] = field(default_factory=dict)

    def name(self, field_name: str) -> str:
        """The name of a field in the URL."""
        return self.names.get(field_name, field_name)

    def parameters(self) -> list[str]:
        """Every name in the URL that is this page's."""
        return [self.name(one) for one in self.values]

    def parse(self, query: Query) -> S:
        """The state that a URL asks for; parameters of others are ignored."""
        return self._read(query, [])

    def refused(self, query: Query) -> list[str]:
        """What a URL has wrong, a sentence for each parameter."""
        wrong: list[str] = []
        self._read(query, wrong)
        return wrong

    def _read(self, query: Query, wrong: list[str]) -> S:
        said = {}
        for one, value in self.values.items():
            name = self.name(one)
            given = list(query.get(name, ()))
            is_emptied = given == [""] and isinstance(getattr(self.usual, one), tuple)
            if not any(given) and not is_emptied:
                continue
            try:
                said[one] = value.read(given)
            except ValueError:
                wrong.append(str(BadParameter(name, ", ".join(given), value.accepted)))
        return replace(self.usual, **said)  # type: ignore[type-var]  # a dataclass, which no type says

    def render(self, state: S) -> dict[str, list[str]]:
        """The URL parameters of a state, without those that are as usual."""
        return {
            self.name(one): value.write(getattr(state, one))
            for one, value in self.values.items()
            if getattr(state, one) != getattr(self.usual, one)
        }

    def to_text(self, state: S) -> str:
        """A state as one query string, always the same for the same state: what a link or a saved view carries."""
        return urlencode(self.render(state), doseq=True)

    def from_text(self, query_string: str) -> S:
        """The state of a query string."""
        return self.parse(parse_qs(query_string, keep_blank_values=True))
