"""Reads usage keys: what a key of `usageDetails` counts, in whatever spelling a provider, an SDK or a library sends it.

Langfuse stores keys as they come: `input`, `prompt_tokens`, `promptTokenCount`, `gen_ai.usage.input_tokens`. The table
of spellings is in docs/units.md; a rate card may map more.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from billing_core.values.usage_frame import TOKEN_CLASSES

INPUT, OUTPUT, CACHE_READ, CACHE_WRITE, REASONING, OTHER = range(len(TOKEN_CLASSES))

IN, OUT, NEITHER = range(3)
"""Which of an event's sums a key counts into: `tokens_in`, `tokens_out` or only `tokens_total`."""

REST = ""
"""The key of tokens that a total contains and no key names."""


class KeyMeaning(StrEnum):
    """What the number behind a usage key counts: a total, tokens, or other units."""

    TOTAL = "total"
    TOKENS = "tokens"
    UNITS = "units"  # searches, characters, images, seconds: never added to tokens


class UsageKey(NamedTuple):
    """The meaning of one usage key.

    token_class: Its index in `TOKEN_CLASSES`; only for tokens.
    is_whole: All tokens of its side, or what is left of them once the others are taken out (`input`, `prompt_tokens`).
    is_side_total: Says that it is the total of its side (`total_input_tokens`).
    is_detail: Stands inside a `…_details` object: a part of its side's whole, not beside it.
    meaning: Keys of one meaning are spellings of the same number.
    is_known: Every word of it is one we know; otherwise its class is a guess.
    """

    counted: KeyMeaning
    token_class: int
    side: int
    is_whole: bool
    is_side_total: bool
    is_detail: bool
    meaning: tuple[object, ...]
    is_known: bool


_BORDERS = re.compile(r"(?<=[a-z])(?=\d+[hm](?![a-z]))|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")
_JOINED = re.compile(r"(total|input|output|prompt|completion|cached|reasoning|thinking|thoughts)(tokens?|count)\Z")

_ONE = {
    "tokens": "token",
    "counts": "count",
    "details": "detail",
    "caching": "cache",
    "cached": "cache",
    "caches": "cache",
    "inputs": "input",
    "outputs": "output",
    "prompts": "prompt",
    "completions": "completion",
    "candidates": "candidate",
    "responses": "response",
    "generated": "output",
    "creating": "creation",
    "created": "creation",
    "writes": "write",
    "written": "write",
    "reads": "read",
    "hits": "hit",
    "misses": "miss",
    "thoughts": "thinking",
    "thought": "thinking",
    "think": "thinking",
    "reason": "reasoning",
    "totals": "total",
    "modalities": "modality",
    "predictions": "prediction",
    "tools": "tool",
    "credits": "credit",
}
"""Words that are told apart only by their form."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TOKEN_WORDS = {"token"}
_NOISE = _words(
    "token count usage gen ai llm detail metadata metrics of num number n used consumed billed amount openai "
    "anthropic gemini google vertex bedrock aws azure mistral cohere ollama langfuse observation model"
)
"""Words that change nothing about what is counted."""

_TOTAL = {"total", "all", "sum", "overall", "grand", "combined"}
_INPUT = {"input", "prompt"}
_OUTPUT = {"output", "completion", "candidate", "response"}
_CACHE = {"cache", "ephemeral"}
_CACHE_WRITE = {"creation", "write", "ephemeral"}
_NOT = {"no", "non", "not", "un"}
_REASONING = {"reasoning", "thinking"}
_MODALITY = {"audio", "image", "video", "text", "document", "pdf", "speech"}
_KNOWN = _MODALITY | _words(
    "modality content read hit accepted rejected prediction tool use result regular standard batch flex priority "
    "long short context above below 5m 1h 24h 1 2 3 128k 200k 256k 272k ttl internal other search"
)
"""Further words that occur in keys of tokens."""

_UNITS = _words(
    "character characters chars char images pictures pixels second seconds sec secs minute minutes mins hour "
    "hours millisecond milliseconds ms duration latency time request requests search searches query queries call "
    "calls session sessions page pages documents bytes kb mb gb megabytes gigabytes cost costs price usd credit "
    "words word items files videos frames steps clips songs units unit invocations executions runs turns messages "
    "fetches lookups samples megapixels"
)
"""Words that say that something else than tokens is counted, if no word says token."""

_COUNTING = {"count", "num", "number", "n", "generated"}


@lru_cache(maxsize=8192)
def words_of(key: str) -> tuple[str, ...]:
    """The words of a usage key, the same for all spellings: `cachedContentTokenCount`, `cached_content_token_count`,
    `CACHED-CONTENT.token.count`.
    """
    words: list[str] = []
    for word in _BORDERS.split(key):
        small = word.lower()
        joined = _JOINED.fullmatch(small)
        words += joined.groups() if joined else [small] if small else []
    return tuple(words)


@lru_cache(maxsize=8192)
def read_key(key: str) -> UsageKey:
    """What a usage key counts; see `UsageKey`. A key that nothing is known of counts tokens of the class other."""
    spelled = words_of(key)
    words = [_ONE.get(word, word) for word in spelled]
    found = set(words)
    names_tokens = bool(found & _TOKEN_WORDS)
    if key == REST:
        return _unknown(key, [], is_known=True)
    if not names_tokens and _is_unit(spelled, found):
        return UsageKey(KeyMeaning.UNITS, OTHER, NEITHER, False, False, False, tuple(words), True)

    if found & {"per", "first"}:  # tokens per second, time to first token: rates and times, no usage
        return UsageKey(KeyMeaning.UNITS, OTHER, NEITHER, False, False, False, tuple(words), True)
    left = found - _NOISE
    if found and left <= _TOTAL and (left or names_tokens):
        return UsageKey(KeyMeaning.TOTAL, OTHER, NEITHER, False, False, False, (), True)
    if "request" in left and names_tokens:  # request_tokens, response_tokens: older names of some agent libraries
        left = (left - {"request"}) | {"input"}
    if "eval" in left:  # prompt_eval_count, eval_count
        left = (left - {"eval"}) | ({"input"} if left & _INPUT else {"output"})
    if not left & (_INPUT | _OUTPUT | _CACHE | _REASONING | {"prediction", "uncached"}):
        return _unknown(key, words, is_known=left == {"other"})
    rest = left - _INPUT - _OUTPUT - _TOTAL
    side = _side(key, IN if left & _INPUT else OUT)
    meaning: set[str] = set()
    is_detail = "detail" in found and bool(left & (_INPUT | _OUTPUT))
    if rest & {"uncached", "miss", "fresh"} or (rest & _CACHE and rest & _NOT):
        rest -= {"uncached", "miss", "fresh", *_CACHE, *_NOT}
        meaning, token_class, side, is_detail = {"fresh"}, INPUT, _side(key, IN), True
    elif rest & _CACHE:
        token_class, side = CACHE_WRITE if rest & _CACHE_WRITE else CACHE_READ, _side(key, IN)
        is_detail |= "content" in rest or ("hit" in rest and "prompt" in left)
        rest -= {*_CACHE, *_CACHE_WRITE, "read", "hit", "content"}
    elif rest & _REASONING:
        rest -= {*_REASONING, "content"}
        token_class, side = REASONING, _side(key, OUT)
    else:
        token_class = INPUT if side == IN else OUTPUT
        is_whole = not rest and not is_detail
        is_side_total = is_whole and bool(left & _TOTAL)
        return UsageKey(
            KeyMeaning.TOKENS,
            token_class,
            side,
            is_whole,
            is_side_total,
            is_detail,
            (token_class, *sorted(rest)),
            rest <= _KNOWN,
        )
    named = (token_class, *sorted(meaning | rest))
    return UsageKey(KeyMeaning.TOKENS, token_class, side, False, False, is_detail, named, rest <= _KNOWN)


def _side(key: str, otherwise: int) -> int:
    """Langfuse's own rule where it says something: keys that contain `input` or `output`."""
    small = key.lower()
    return IN if "input" in small else OUT if "output" in small else otherwise


_HINTS = (
    ("cache", CACHE_READ, IN),
    ("reasoning", REASONING, OUT),
    ("thinking", REASONING, OUT),
    ("input", INPUT, IN),
    ("prompt", INPUT, IN),
    ("output", OUTPUT, OUT),
    ("completion", OUTPUT, OUT),
)


def _unknown(key: str, words: list[str], *, is_known: bool = False) -> UsageKey:
    """Tokens by the first word that the key contains anywhere, else of the class other."""
    small = key.lower()
    for hint, token_class, side in _HINTS:
        if hint in small:
            return UsageKey(
                KeyMeaning.TOKENS, token_class, _side(key, side), False, False, False, (OTHER, *words), is_known
            )
    return UsageKey(KeyMeaning.TOKENS, OTHER, NEITHER, False, False, False, (OTHER, *words), is_known)


def _is_unit(spelled: tuple[str, ...], found: set[str]) -> bool:
    """Images are counted, image tokens are not: the counted, or a word for counting, tells them apart."""
    if found & _UNITS or set(spelled) & _UNITS:
        return not found & (_CACHE | _REASONING)
    return bool(found & {"image", "video", "picture"} and set(spelled) & _COUNTING)
