"""An independent judge of requests: pydantic over the parameter types of Stripe's own SDK (notes, section 11)."""

from __future__ import annotations

import sys
from typing import Any

import stripe
from pydantic import ConfigDict, TypeAdapter
from stripe import StripeContext, _request_options
from typing_extensions import TypedDict, get_type_hints, is_typeddict

CONFIG = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
OPTIONS = set(_request_options.RequestOptions.__annotations__)


def adapter(cls: Any) -> TypeAdapter[Any]:
    """Accepts exactly the parameters of one SDK call; the SDK's types need their names resolved first."""
    module = sys.modules[cls.__module__]
    for found in vars(module).values():
        if is_typeddict(found):
            found.__pydantic_config__ = CONFIG
    names = {**vars(_request_options), "StripeContext": StripeContext, **vars(stripe), **vars(module)}
    hints = get_type_hints(cls, globalns=names, localns=names, include_extras=True)
    flat = TypedDict(cls.__name__, {name: hint for name, hint in hints.items() if name not in OPTIONS})
    flat.__pydantic_config__ = CONFIG
    return TypeAdapter(flat)
