"""Invoice items of the sandbox: written down once, on the next invoice, gone while that is a draft."""

import pytest
import stripe

from tests.sandbox.stripe_world import ACME, GLOBEX, World


@pytest.fixture
def world():
    return World()


def create(world, key="key", amount=1234, customer=ACME, currency="usd", **more):
    body = {"customer": customer, "amount": amount, "currency": currency, "description": "Usage of October", **more}
    return world.stripe.v1.invoice_items.create(body, {"idempotency_key": key})


def items(world, **parameters):
    return [item.id for item in world.stripe.v1.invoice_items.list({"limit": 2, **parameters}).auto_paging_iter()]


def test_an_item_lands_on_the_next_invoice_and_on_the_preview_before(world):
    item = create(world, metadata={"settlement": "one"}, period={"start": 1, "end": 2})
    assert (item.invoice, item.metadata.to_dict(), item.period.start) == (None, {"settlement": "one"}, 1)
    before = world.stripe.v1.invoices.create_preview({"customer": ACME})
    assert [line.amount for line in before.lines.data if line.description == "Usage of October"] == [1234]
    world.wait(days=32)
    invoice = world.stripe.v1.invoices.retrieve(world.stripe.v1.invoice_items.retrieve(item.id).invoice)
    assert [line.parent.invoice_item_details.invoice_item for line in invoice.lines.data[-1:]] == [item.id]
    assert invoice.total == sum(line.amount for line in invoice.lines.data)
    assert items(world, pending="true") == []


def test_the_same_key_makes_one_item_and_remembers_what_was_answered(world):
    assert create(world).id == create(world).id
    with pytest.raises(stripe.IdempotencyError):
        create(world, amount=1)
    world.wait(hours=25)
    assert create(world).id != items(world)[-1]
    assert len(items(world)) == 2


def test_items_are_listed_by_customer_newest_first_and_page_by_page(world):
    made = [create(world, key=str(number), amount=number + 1).id for number in range(5)]
    create(world, key="other", customer=GLOBEX)
    assert items(world, customer=ACME) == made[::-1]
    assert items(world, customer=ACME, created={"gte": int(world.now.timestamp()) + 1}) == []


def test_an_item_is_deleted_while_its_invoice_is_a_draft_and_not_after(world):
    first, second = create(world, "a"), create(world, "b")
    assert world.stripe.v1.invoice_items.delete(first.id).deleted
    for call in (world.stripe.v1.invoice_items.delete, world.stripe.v1.invoice_items.retrieve):
        with pytest.raises(stripe.InvalidRequestError, match="No such invoiceitem"):
            call(first.id)
    world.wait(days=32)
    with pytest.raises(stripe.InvalidRequestError, match="pending or attached to a draft"):
        world.stripe.v1.invoice_items.delete(second.id)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"customer": "cus_gone"}, "No such customer"),
        ({"currency": "eur"}, "cannot combine currencies"),
        ({"amount": "12.5"}, "Invalid integer"),
        ({"customer": ""}, "Missing required param"),
    ],
)
def test_what_stripe_refuses_makes_no_item(world, more, says):
    world.switch(deleted_customers=["cus_gone"])
    with pytest.raises(stripe.InvalidRequestError, match=says):
        create(world, **more)
    assert items(world) == []


def test_a_customer_of_another_currency_gets_items_in_it(world):
    world.switch(currencies={ACME: "jpy"})
    assert world.stripe.v1.customers.retrieve(ACME).currency == "jpy"
    assert create(world, currency="jpy").currency == "jpy"
