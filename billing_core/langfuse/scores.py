"""Writes the billing status of traces to Langfuse, as scores, through the official SDK.

What was ingested into Langfuse cannot be changed; a score can, because sending its id again overwrites it. Source:
sections 4 and 6 of the Langfuse notes.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import httpx
from pydantic import SecretStr

from billing_core.errors import UpstreamError
from billing_core.runtime.bounded_http import bounded_client

if TYPE_CHECKING:
    from langfuse.api.core.api_error import ApiError
    from langfuse.api.scores import CreateScoreRequest, CreateScoresResponse

SCORE_NAME = "billing_status"

BATCH = 15
"""Scores in one request: what the SDK itself sends at once."""

TIMEOUT_SECONDS = 20.0

PATIENCE_SECONDS = 30.0
"""How long one writer waits for rate limits, all in all. A score is not worth holding up a push."""

UNNAMED_PAUSE_SECONDS = 30.0
"""Pause for a 429 that names no time; Langfuse's fixed windows are a minute long."""

SHORTEST_PAUSE_SECONDS = 1.0

LONGEST_COMMENT = 500

ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]{1,40}")
"""Environments a score may name; one in another would be refused."""

LATER = "the push is not affected, and what is left is written with the next one"


@dataclass(frozen=True, slots=True)
class StatusScore:
    """The score that shows one trace's billing status, in full: Langfuse keeps nothing of the score it replaces.

    `timestamp` is the trace's start, aware UTC: Langfuse replaces a score by id, name and UTC day of its timestamp.
    Servers up to v4.16 ignore it and stamp the day of writing; there, every day a status is written adds a score.
    """

    project_id: str | None
    trace_id: str
    status: str
    timestamp: datetime
    comment: str | None = None
    environment: str | None = None

    @property
    def id(self) -> str:
        """The score's id: the same for every status of the trace, so that the newest replaces the others."""
        return hashlib.sha256(f"{self.project_id or ''}|{self.trace_id}|{SCORE_NAME}".encode()).hexdigest()

    def request(self) -> CreateScoreRequest:
        """The score in the SDK's form; what is not known, or not allowed in a score, is left out."""
        from langfuse.api.commons import ScoreDataType
        from langfuse.api.scores import CreateScoreRequest

        optional = {
            "comment": self.comment and self.comment[:LONGEST_COMMENT],
            "environment": self.environment if ENVIRONMENT.fullmatch(self.environment or "") else None,
        }
        return CreateScoreRequest(
            id=self.id,
            trace_id=self.trace_id,
            name=SCORE_NAME,
            value=self.status,
            data_type=ScoreDataType.CATEGORICAL,
            timestamp=self.timestamp,
            **{name: text for name, text in optional.items() if text},
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """A batch of scores the server has answered: it took all but `rejected` of them and, in a list, does not tell
    which. It took all but `rejected` of them and, in a list, does not tell which.
    """

    scores: tuple[StatusScore, ...]
    rejected: int = 0
    reason: str | None = None


class _Refused(Exception):
    """The server finds fault with what was sent (400); sending it again changes nothing."""


class ScoreWriter:
    """Sends scores to one Langfuse project; a context manager, for one thread.

    wait: Sleeps; seconds.
    """

    def __init__(
        self,
        host: str,
        public_key: str,
        secret_key: SecretStr,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        from langfuse.api import LangfuseAPI

        self._where = f"Langfuse at {httpx.URL(host).netloc.decode().rpartition('@')[2]}: POST /api/public/scores"
        self._secret_key = secret_key
        self._wait = wait
        self._patience = PATIENCE_SECONDS
        self._takes_lists = True
        self._took_any = False
        self._http = bounded_client(timeout=timeout_seconds)
        self._api = LangfuseAPI(
            base_url=host,
            username=public_key,
            password=secret_key.get_secret_value(),
            timeout=timeout_seconds,
            httpx_client=self._http,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def write(self, scores: Sequence[StatusScore]) -> Iterator[Answered]:
        """Send scores in batches; yields after each batch what the server took.

        A server that refuses a list (v3, v4 up to v4.16) gets one score per request from then on. A list that is
        taken in part is not sent again.

        Raises UpstreamError: the server cannot be reached, refuses everything, or asks for a longer pause than a score
        is worth.
        """
        for first in range(0, len(scores), BATCH):
            batch = tuple(scores[first : first + BATCH])
            if self._takes_lists:
                try:
                    yield self._write_list(batch)
                    continue
                except _Refused:
                    self._takes_lists = False
            yield from self._write_singly(batch)

    def _write_list(self, batch: tuple[StatusScore, ...]) -> Answered:
        from langfuse.api.scores import CreateScoreBatchResults

        answer = self._post([score.request() for score in batch])
        if not isinstance(answer, CreateScoreBatchResults) or not answer.rejected:
            return Answered(batch)
        reasons = dict.fromkeys(error.message for error in answer.errors)
        return Answered(batch, answer.rejected, self._without_secret("; ".join(reasons) or "no reason given"))

    def _write_singly(self, batch: tuple[StatusScore, ...]) -> Iterator[Answered]:
        """Of a batch cut short by a failure, what was taken is said first: it need not be written again."""
        taken, refused = [], []
        reason: str | None = None
        failure: UpstreamError | None = None
        for score in batch:
            try:
                # Typed for lists only; the SDK sends a single score as the single object older servers want.
                self._post(cast("list[CreateScoreRequest]", score.request()))
            except _Refused as error:
                refused.append(score)
                reason = str(error)
            except UpstreamError as error:
                failure = error
                break
            else:
                taken.append(score)
        self._took_any |= bool(taken)
        if refused and not self._took_any and failure is None:  # then it is hardly the fault of these scores
            failure = UpstreamError(f"{self._where} refuses every score ({reason}); {LATER}")
        if self._took_any and (taken or refused):
            yield Answered((*taken, *refused), len(refused), reason)
        if failure is not None:
            raise failure

    def _post(self, request: list[CreateScoreRequest]) -> CreateScoresResponse:
        from langfuse.api.core.api_error import ApiError

        while True:
            try:
                # Its own retries sleep up to a minute each, and repeat what must not be repeated.
                answer: CreateScoresResponse = self._api.scores.create(
                    request=request, request_options={"max_retries": 0}
                )
                return answer
            except ApiError as error:
                if error.status_code == 429:
                    self._pause(_pause_seconds(error))
                elif error.status_code == 400:
                    raise _Refused(self._message(error.body)) from None
                else:
                    text = f"answered {error.status_code} ({self._message(error.body)}); {_advice(error.status_code)}"
                    raise UpstreamError(f"{self._where} {text}{LATER}") from None
            except httpx.HTTPError as error:
                text = f"failed ({type(error).__name__}); check LANGFUSE_HOST and the network; "
                raise UpstreamError(f"{self._where} {text}{LATER}") from None
            except (ValueError, TypeError, LookupError, RecursionError):  # pydantic's, about the answer
                raise UpstreamError(f"{self._where} answered something unexpected; {LATER}") from None

    def _pause(self, seconds: float) -> None:
        if seconds > self._patience:
            raise UpstreamError(f"{self._where} answered 429 and asks to wait {seconds:.0f} s; {LATER}")
        self._patience -= seconds
        self._wait(seconds)

    def _message(self, body: object) -> str:
        """The server's own words. A schema error says what is wrong in a list of issues."""
        if not isinstance(body, Mapping):
            return "not JSON"  # a proxy's page, as a rule
        issues = body.get("error")
        texts = [body.get("message")]
        texts += [i.get("message") for i in issues if isinstance(i, Mapping)] if isinstance(issues, list) else [issues]
        return self._without_secret(": ".join(text for text in texts if isinstance(text, str)) or "no reason given")

    def _without_secret(self, text: str) -> str:
        """One line of bearable length; never the secret key, should the server echo it."""
        return " ".join(text.replace(self._secret_key.get_secret_value(), "***").split())[:300]


def _pause_seconds(error: ApiError) -> float:
    """How long a 429 asks to wait. `Retry-After` is whole seconds and authoritative."""
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    details: Any = error.body.get("details") if isinstance(error.body, Mapping) else None
    named = headers.get("retry-after") or (details.get("retryAfterSeconds") if isinstance(details, Mapping) else None)
    try:
        seconds = float(str(named))
    except ValueError:
        seconds = UNNAMED_PAUSE_SECONDS
    return max(seconds, SHORTEST_PAUSE_SECONDS) if math.isfinite(seconds) else UNNAMED_PAUSE_SECONDS


def _advice(status: int | None) -> str:
    if status == 401:
        return "check LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY and that LANGFUSE_HOST is the project's own region; "
    if status == 403:
        return "a project's key that may write is needed; "
    return ""
