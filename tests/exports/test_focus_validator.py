"""The public validator agrees, apart from rules that its model cannot express.

It needs another Python and another NumPy than the product: `make test` gives it an environment of its own where there
is a Python 3.12. What it prints is read, not its exit status, which is 0 even after failures.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from billing_core.exports.focus import focus_table
from tests.exports.focus_events import late, profile, stored, table_of

ALLOWED = {
    "BilledCost-C-005": "0 where a third party is paid: the condition is not in the model",
    "InvoiceId-C-004": "null without an invoice: the model asks it of every row",
    "InvoiceId-C-005": "not null with an invoice: the model asks it of every row as well",
    "ConsumedQuantity-C-004": "asks for CommitmentDiscountStatus, which nobody without commitments owes",
    "ConsumedQuantity-C-006": "asks for CommitmentDiscountStatus, which nobody without commitments owes",
    "PricingCurrency-C-003": "takes national currencies only, where the specification allows virtual ones",
}
"""Rule → why its failure is the model's, not the file's."""

MODEL_VERSION = "1.2.0.1"
"""The model of FOCUS 1.2 that is inside the validator."""

APPLIES = (
    "NEGOTIATED_PRICING_SUPPORTED",
    "PUBLIC_PRICE_LIST_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "SUB_ACCOUNT_SUPPORTED",
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "PRICING_BILLING_CURRENCY_DIFFERENCES_SUPPORTED",
    "VIRTUAL_CURRENCY_SUPPORTED",
    "TAGGING_SUPPORTED",
)
"""What is true of us; without it the validator skips the conditional rules."""

PLACE = Path(__file__).parents[2] / ".venv-focus"
VALIDATOR = PLACE / "bin" / "focus-validator"
NOT_THERE = "the public validator needs a Python 3.12, which `make focus-validator` did not find; see docs/focus.md"

_TOTAL = re.compile(r"^Total: \d+ \| Pass: \d+ \| Fail: (\d+) \| Skipped: \d+", re.MULTILINE)
_FAILED = re.compile(r"^\W*([A-Za-z]+-[A-Z]-\d{3}-[A-Z]): FAIL\b", re.MULTILINE)


def failed_rules(output):
    """The rules that failed, by what the validator printed; output that does not add up is refused."""
    total = _TOTAL.search(output)
    assert total, f"the validator printed no totals:\n{output[-2000:]}"
    failed = _FAILED.findall(output)
    assert len(failed) == int(total[1]), f"{total[0]}: but {len(failed)} are named"
    return failed


def unexpected(output, composites):
    """Failures out of the list. `composites` only sum up other rules and fail with them."""
    return [rule for rule in failed_rules(output) if rule not in composites and rule.rpartition("-")[0] not in ALLOWED]


def composites_of(model):
    """Ids of the rules that are made of other rules, wherever they stand in the validator's model."""
    if not isinstance(model, dict):
        return set()
    here = {name for name, rule in model.items() if isinstance(rule, dict) and rule.get("Function") == "Composite"}
    return here.union(*(composites_of(inner) for inner in model.values()))


PRINTED = """
=== Validation Results ===
Total: 5 | Pass: 2 | Fail: 3 | Skipped: 0
✅ BilledCost-C-002-M: PASS  (violations=0, 0.1ms)
✅ Tags-C-001-C: PASS  (violations=0, 0.1ms)
❌ BillingCurrency-C-003-M: FAIL  (violations=1, 0.2ms)
❌ InvoiceId-C-000-C: FAIL  (reason=failed children)
❌ InvoiceId-C-004-C: FAIL  (violations=5)

--- Failures ---
- BillingCurrency-C-003-M: violations=1; Credits
"""
MODEL = {
    "ModelRules": {"InvoiceId-C-000-C": {"Function": "Composite"}, "InvoiceId-C-004-C": {"Function": "Nullability"}}
}


def test_the_list_names_six_rules():
    assert len(ALLOWED) == 6


def test_what_the_validator_prints_is_read_rule_by_rule():
    assert failed_rules(PRINTED) == ["BillingCurrency-C-003-M", "InvoiceId-C-000-C", "InvoiceId-C-004-C"]
    assert unexpected(PRINTED, composites_of(MODEL)) == ["BillingCurrency-C-003-M"]
    assert unexpected(PRINTED, set()) == ["BillingCurrency-C-003-M", "InvoiceId-C-000-C"]


@pytest.mark.parametrize("output", ["Traceback: no such file", PRINTED.replace("Fail: 3", "Fail: 4")])
def test_output_that_does_not_add_up_is_no_success(output):
    with pytest.raises(AssertionError):
        failed_rules(output)


@pytest.mark.skipif(not VALIDATOR.exists(), reason=NOT_THERE)
def test_the_public_validator_finds_nothing_but_its_own_limits(tmp_path):
    events = table_of(
        stored(credits_storage="7", storage_gb="0.014"),
        stored(id="trace-2", customer_id=None, organization_id=None, chatflow_id=None, chatflow_name=None),
        late(credits="-100", id="trace-3"),
        late(credits="80", id="trace-3"),
    )
    path = tmp_path / "focus.parquet"
    pq.write_table(focus_table(events, profile(organization_names={"org_a": "Acme"})), path)
    (package,) = PLACE.glob("lib/python3.*/site-packages/focus_validator")
    models = [json.loads(file.read_text(encoding="utf-8")) for file in package.glob("rules/model-1.2*.json")]
    ran = subprocess.run(
        [
            str(VALIDATOR),
            "--data-file",
            str(path),
            "--validate-version",
            MODEL_VERSION,
            "--block-download",
            "--applicability-criteria",
            ",".join(APPLIES),
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
        cwd=package.parent,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONUTF8": "1"},
    )
    composites = set().union(*map(composites_of, models))
    assert unexpected(ran.stdout, composites) == [], ran.stdout + ran.stderr
