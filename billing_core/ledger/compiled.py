"""Questions to the ledger that are compiled to SQL once per shape and process, and run with bound values.

To build and compile an Ibis expression takes ten times as long as the engine takes to answer it. So a question is a
function that builds the expression, and its arguments; the values among them are wrapped (`bound_time`, `bound_text`
…). What remains without them is the question's shape: the key of its compiled text, in which every value is a
placeholder. Building never sees a value, so a shape cannot depend on one, and text from outside is never SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import Any, TypeVarTuple

import ibis
import ibis.expr.datashape as ds
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.rules as rlz
import ibis.expr.types as ir
import sqlglot as sg
import sqlglot.expressions as sge
from ibis.backends.sql.compilers import DuckDBCompiler
from ibis.common.annotations import attribute

Args = TypeVarTuple("Args")

SHAPES = 512
"""Compiled questions that are kept, the least recently asked go first. A text is some 2 to 40 KB long."""

SHORT = 8
"""Lists up to this length are bound one by one, which an engine plans like literals; longer ones as one array."""

NEVER_STORED = "\0"

VARIABLE = "given"
"""The DuckDB variable that holds the values of a question: a struct with the fields `p0`, `p1` …"""


_DECIMALS = Context(prec=38, traps=[Inexact, InvalidOperation])


class Bound:
    """A value of a question that is bound when it runs; the function that builds the question sees only its type."""

    __slots__ = ()

    @property
    def scalar(self) -> Any:
        """The bound value as an Ibis expression."""
        raise NotImplementedError

    @property
    def rows(self) -> Any:
        """The bound value as a limit or an offset of rows."""
        return self.scalar

    def holds(self, column: ir.Value) -> ir.BooleanValue:
        """Whether a column's value is in this bound list."""
        raise NotImplementedError

    def __bool__(self) -> bool:
        raise TypeError("a question that looks at a value would be compiled for that value")


@dataclass(frozen=True, slots=True)
class Given(Bound):
    """A value as the caller gives it; a question built with it has literals, which tests compare compiled ones with."""

    kind: str
    value: Any

    @property
    def scalar(self) -> Any:
        return ibis.literal(self.value, self.kind)

    @property
    def rows(self) -> Any:
        return self.value

    def holds(self, column: ir.Value) -> ir.BooleanValue:
        return column.isin(list(self.value))


@dataclass(frozen=True, slots=True)
class _Slot(Bound):
    """The place of a value in a shape."""

    kind: str
    place: int

    @property
    def scalar(self) -> Any:
        return Placeholder(self.place, dt.dtype(self.kind)).to_expr()

    def holds(self, column: ir.Value) -> ir.BooleanValue:
        found: ir.BooleanValue = Among(column, self.scalar).to_expr()
        return found


Listed = tuple[Bound, ...] | Bound
"""A list of values: one by one, or as an array. See `bound_list`."""


def bound_time(time: datetime) -> Bound:
    """A bound value of an aware time; stored times are UTC without an offset."""
    return Given("timestamp(6)", time.astimezone(UTC).replace(tzinfo=None))


def bound_text(value: str) -> Bound:
    """A bound value of a text. One that is not Unicode equals and is found in nothing stored."""
    return Given("string", _storable(value))


def _storable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return NEVER_STORED
    return value


def bound_number(value: int, kind: str = "int64") -> Bound:
    """A bound value of a whole number, of the Ibis type `kind`."""
    return Given(kind, value)


def bound_decimal(value: Decimal, places: int) -> Bound:
    """A bound value of an exact decimal: 38 digits, `places` of them after the point.

    It is written out with all its places, because DuckDB takes 1E+5 for 1, and more digits than 38 for a float.

    Raises decimal.InvalidOperation, decimal.Inexact: if it has more digits.
    """
    return Given(f"decimal(38, {places})", value.quantize(Decimal(1).scaleb(-places), context=_DECIMALS))


def bound_list(values: Iterable[str]) -> Listed:
    """A bound value of a list of texts, for `among`.

    A short one is filled up to a power of two with its last value, so that there are few shapes.
    """
    found = tuple(map(_storable, values))
    if len(found) > SHORT:
        return Given("array<string>", found)
    if not found:
        return ()
    length = 1 << (len(found) - 1).bit_length()
    return tuple(bound_text(value) for value in (*found, *found[-1:] * (length - len(found))))


def among(column: ir.Value, values: Listed) -> ir.BooleanValue:
    """An expression: whether a column's value is in a bound list; an empty list contains nothing."""
    if isinstance(values, Bound):
        return values.holds(column)
    return column.isin([value.scalar for value in values])


@dataclass(frozen=True, slots=True)
class Question:
    """A question to the ledger: `build(*args)` is its Ibis expression, with `Bound` values among its arguments."""

    build: Callable[..., ir.Table]
    args: tuple[Any, ...]

    def expression(self) -> ir.Table:
        """The question's Ibis expression with its values as literals."""
        return self.build(*self.args)


def ask(build: Callable[[*Args], ir.Table], *args: *Args) -> Question:
    """A question to the ledger; `build` is a module's function that gets everything it needs as arguments."""
    if build.__closure__ is not None:
        raise TypeError(f"{build.__qualname__} must get its values as arguments, not from around it")
    return Question(build, args)


@dataclass(frozen=True, slots=True)
class Compiled:
    """The SQL of a question, and the columns of its answer."""

    text: str
    columns: tuple[str, ...]


def compiled(question: Question, dialect: str) -> tuple[Compiled, list[Any]]:
    """The SQL of a question with placeholders, and the values for them in order; compiled once per shape."""
    values: list[Any] = []
    shape = tuple(_shape(one, values) for one in question.args)
    return _compile(question.build, shape, dialect), values


def _shape(part: Any, values: list[Any]) -> Any:
    """A part of a question without its values, which are appended to `values`."""
    match part:
        case Given():
            values.append(list(part.value) if isinstance(part.value, tuple) else part.value)
            return _Slot(part.kind, len(values) - 1)
        case None | bool() | str():
            return part
        case tuple():
            return tuple(_shape(one, values) for one in part)
        case _ if is_dataclass(part) and not isinstance(part, type):
            return replace(part, **{one.name: _shape(getattr(part, one.name), values) for one in fields(part)})
    raise TypeError(f"{part!r} in a question is neither a bound value nor part of its shape")


@lru_cache(SHAPES)
def _compile(build: Callable[..., ir.Table], shape: tuple[Any, ...], dialect: str) -> Compiled:
    expression = build(*shape)
    compiler = _COMPILERS[dialect]
    made = compiler.to_sqlglot(expression)
    return Compiled(made.sql(dialect=compiler.dialect, copy=False), tuple(expression.columns))


class Placeholder(ops.Value):  # type: ignore[misc]
    """An Ibis operation: the place of a bound value in SQL."""

    place: int
    dtype: dt.DataType

    shape = ds.scalar

    @property
    def name(self) -> str:
        return f"p{self.place}"


class Among(ops.Value):  # type: ignore[misc]
    """An Ibis operation: whether a value is in a bound array."""

    value: ops.Value
    options: ops.Value[dt.Array]

    dtype = dt.boolean

    @attribute  # type: ignore[untyped-decorator]
    def shape(self) -> ds.DataShape:
        """The shape (column or scalar) of the operation's result: that of its value."""
        return rlz.highest_precedence_shape([self.value])


class _DuckDB(DuckDBCompiler):  # type: ignore[misc]
    """DuckDB's dialect. A variable is a constant to its planner, which a prepared statement's parameter is not."""

    __slots__ = ()

    def visit_Placeholder(self, _: Placeholder, *, place: int, dtype: dt.DataType) -> sge.Expression:  # noqa: N802
        """A field of the variable, in the question's type: what DuckDB makes of a Python value depends on the value."""
        field = sge.Dot(this=self.f.anon.getvariable(VARIABLE), expression=sg.to_identifier(f"p{place}"))
        placeholder: sge.Expression = self.cast(field, dtype)
        return placeholder

    def visit_Among(self, _: Among, *, value: sge.Expression, options: sge.Expression) -> sge.Expression:  # noqa: N802
        """A subquery: the engine makes a hash of it."""
        return value.isin(query=sg.select(self.f.anon.unnest(options)))

    def visit_Limit(self, op: ops.Limit, *, parent: Any, n: Any, offset: Any) -> Any:  # noqa: N802
        """As it is with numbers; Ibis would run a subquery for what is none."""
        bound = {"limit": (sge.Limit, n), "offset": (sge.Offset, offset)}
        result = super().visit_Limit(op, parent=parent, n=1, offset=1 if isinstance(offset, sge.Expression) else offset)
        select = result.this if isinstance(result, sge.Subquery) else result
        for name, (kind, value) in bound.items():
            if isinstance(value, sge.Expression):
                select.set(name, kind(expression=value))
        return result


_COMPILERS = {"duckdb": _DuckDB()}
