"""The demo's messages: what customers of a parcel service write, each with its topic and the parcel's number.

Written for this project. `examples()` gives the same rows whenever it is called: held-out messages are worded in ways
that no training message is.
"""

from __future__ import annotations

import random
from typing import Any

TOPICS: dict[str, tuple[str, ...]] = {
    "tracking": (
        "Where is my parcel {n}? It should have been here {day}.",
        "The tracking page for {n} has not changed since {day}.",
        "can you tell me when {n} gets to {place}",
        "No news about {n} for days, is it still on its way?",
        "Your site says {n} left the depot, when will it be in {place}?",
        "Has {n} cleared customs yet?",
        "The last scan of {n} was in {place} and that was {day}.",
        "Who has {n} right now, you or the post?",
        "my {thing} from {shop} is nowhere to be seen, do you know where it is",
        "Will {n} make it to {place} before the weekend?",
        "It is the fifth day without a sign of {n}.",
        "What does the status 'handed over' mean for {n}?",
        "Since {day} the map shows the van of {n} at the same corner.",
        "I am waiting for a parcel from {shop}, any idea where it is right now?",
        "status of {n} please",
        "It says out for delivery since {day} but nobody came with {n}.",
        "How far away is my order from {shop}?",
    ),
    "new_address": (
        "Please send {n} to my office in {place} instead.",
        "I moved to {place} last week, can {n} go to the new flat?",
        "Wrong street on my parcel {n}, the right one is {street}.",
        "Could you redirect {n} to {street}?",
        "I typed the wrong house number for {n}, it must be {street}",
        "{n} is on its way to my old flat, I live at {street} now.",
        "the label of {n} says {place}, that is wrong, it should read {street}",
        "Would you leave {n} with my sister, {street}?",
        "I will be in {place} all month, let {n} follow me there.",
        "Deliver {n} to the shop at {street}, not to my door.",
        "I forgot the flat number on {n}: {street}, third floor.",
        "Our company has a new office at {street}, all parcels such as {n} go there from now on.",
        "Can {n} be taken to a pick-up point in {place}?",
        "Change the delivery address of my order from {shop} to {street} please.",
        "the parcel {n} should go to my neighbour at {street}",
        "Is it possible to have {n} brought to {place} rather than to my home?",
        "My new address is {street}, please use it for {n}.",
    ),
    "new_date": (
        "I am not at home {date}, can you bring {n} another day?",
        "Please deliver {n} {date} and not earlier.",
        "Could {n} come in the evening, I work until six?",
        "We are on holiday until {date}, hold {n} back until then.",
        "can the driver come with {n} {date} instead of today",
        "I get back {date}, not before, so {n} has to wait.",
        "Any chance that {n} comes before noon?",
        "We only open at ten, the driver with {n} should not come earlier.",
        "the appointment for {n} is bad for me, {date} would be better",
        "Keep {n} in the depot for a week, I am in hospital.",
        "Move the delivery of my {thing} to {date}, please.",
        "Do you deliver after seven in the evening? It is about {n}.",
        "Can the second attempt for {n} be {date}?",
        "Today does not suit me for {n}, what about {date}?",
        "I would like to choose another time slot for my parcel from {shop}.",
        "Postpone {n} to {date} please",
        "Nobody will be in {date}, so bring {n} later in the week.",
    ),
    "damaged": (
        "The box of {n} was crushed and the {thing} inside is broken.",
        "My {thing} arrived with a crack in it, parcel {n}.",
        "{n} was soaking wet when I got it.",
        "The carton had a hole and the {thing} is scratched.",
        "Your driver dropped {n} and now the {thing} does not work",
        "All glass in {n} is shattered.",
        "Look at the photo: the corner of the {thing} is knocked off.",
        "the {thing} rattles since you delivered it {day}",
        "Oil ran out of {n} over everything in it.",
        "What a mess, {n} was ripped open on one side and the {thing} has a dent.",
        "I refused {n} because the parcel was squashed flat.",
        "We can not sell the {thing} any more, it has a deep scratch from the transport.",
        "One leg of the {thing} from {shop} is snapped off.",
        "I unpacked {n} {day} and found the {thing} in pieces.",
        "the {thing} from {shop} came dented, who pays for that",
        "Torn packaging, bent {thing}: how do I report this for {n}?",
        "Parcel {n} looks as if a truck ran over it.",
    ),
    "missing_item": (
        "There should be two {thing}s in {n} but I only found one.",
        "The {thing} was not in the box {n}.",
        "I ordered a {thing} and a lamp from {shop}, the lamp is missing.",
        "{n} came half empty, the {thing} is not there.",
        "Something is missing from {n}: the {thing}.",
        "I counted twice, {n} holds four screws and not twelve.",
        "Where is the cable of the {thing}? It was not in {n}.",
        "an empty carton, that is all I got with {n}",
        "The second {thing} did not come.",
        "Somebody took the {thing} out of {n}, the tape was cut.",
        "{shop} says they packed a {thing}, but it is not in my parcel.",
        "The weight on {n} is two kilos less than what {shop} sent.",
        "We were promised three boxes {day} and got two.",
        "my parcel was opened and the {thing} is gone",
        "One of three pieces did not come with {n}.",
        "The delivery note of {n} lists a {thing} that I never got.",
        "I got only a part of my order from {shop} {day}.",
    ),
    "refund": (
        "I want my money back for {n}.",
        "When do I get the refund for the {thing} that I sent back {day}?",
        "You charged me twice for {n}, please pay one back.",
        "The express fee for {n} should be returned, it came late.",
        "still no refund for {n}, it has been three weeks",
        "Cancel {n} and give me back what I paid.",
        "My card was debited two times for one parcel to {place}.",
        "I was promised 20 euros back for {n}, where are they?",
        "you owe me the postage for {n}",
        "To which account did you pay the money for the {thing}?",
        "The parcel was never collected, so I want back what I paid for {n}.",
        "Has the reimbursement for {n} been approved?",
        "I paid too much for {n}, please send me the difference.",
        "How long does it take until the money for {n} is on my account?",
        "I paid for insurance on {n} and want to be reimbursed.",
        "Please refund the shipping costs of my order from {shop}.",
        "Return the amount for {n} to my card.",
    ),
    "invoice": (
        "I need an invoice for {n} for my tax return.",
        "Please send the bill for parcel {n} to our accounts department.",
        "The receipt for {n} shows the wrong company name.",
        "Could I get the invoice that came {day} once more?",
        "our bookkeeper needs a VAT invoice for {n}",
        "Please make out the receipt for {n} to our company.",
        "There is another person's name on the bill for {n}.",
        "We did not get an invoice for the parcels that I sent {day}.",
        "the tax office wants a proper bill for {n}, with VAT",
        "Can I have one monthly invoice instead of one per parcel?",
        "Our order number has to be on the invoice of {n}.",
        "The PDF bill that came {day} cannot be opened.",
        "Resend the receipt of {n}, I deleted the mail.",
        "Where can I download the receipts for what I sent to {place}?",
        "The invoice of {n} has no VAT number on it.",
        "Send me all bills of last month as PDF please.",
        "I cannot find the bill for the parcel that I sent {day}.",
    ),
    "return_label": (
        "I would like to send the {thing} back, how do I get a label?",
        "The return label for {n} does not print.",
        "Please mail me a label to return {n} to {shop}.",
        "Where do I drop off a return for {shop}?",
        "how can i send back the {thing}, there was no form in the box",
        "How do I return {n}?",
        "I do not want the {thing}, how does it get back to {shop}?",
        "Print a return sticker for {n} for me, I have no printer.",
        "which depot takes the {thing} that I want to give back to {shop}",
        "The QR code for sending back {n} has expired.",
        "Do I need the original box to return the {thing}?",
        "A courier should collect the {thing} that goes back to {shop}.",
        "Until when can I send {n} back?",
        "The barcode on my return label for {n} is unreadable.",
        "Can your driver pick up a return {day}?",
        "I lost the label that came with {n}, can you make a new one?",
        "Is returning the {thing} to {shop} free of charge?",
    ),
    "complaint": (
        "Your driver was very rude to me {day}.",
        "The courier threw {n} over the fence.",
        "He rang once and drove off with {n} before I was at the door.",
        "I have complained three times about the driver in {street} and nothing happens.",
        "the man who brought {n} parked on our lawn",
        "The woman on your hotline hung up on me.",
        "Third time that a driver blocks our entrance in {street}.",
        "I saw your driver kick {n} up the stairs.",
        "what a useless service, nobody calls back",
        "Your man forged my signature for {n}.",
        "The driver shouted at my daughter {day}, is that how you treat people?",
        "The letter that I sent {day} is still unanswered, and I am losing patience.",
        "He smoked next to the parcels and left the butt on our doorstep.",
        "Your driver left {n} in the rain without a word.",
        "Nobody answers your phone, I waited forty minutes {day}.",
        "The courier claims I was not home {day}, that is a lie.",
        "I am fed up with your service in {place}, the drivers never ring.",
    ),
    "price": (
        "How much is a parcel of five kilos to {place}?",
        "What does it cost to send a {thing} to {place}?",
        "Is there a discount for twenty parcels a week?",
        "Do you charge extra for {place}?",
        "price for express to {place} please",
        "Two boxes of ten kilos to {place}, what would that be?",
        "Is it cheaper to drop the {thing} off than to have it collected?",
        "what do you take for a {thing} as bulky goods",
        "Do students pay less?",
        "How much more does delivery by noon cost?",
        "Please quote for a pallet to {place}.",
        "Are there fees on top for a parcel to {place}, customs and so on?",
        "Your rates for letters and small packets, please.",
        "What is the cheapest way to get a {thing} from here to {place}?",
        "Are large boxes more expensive than small ones of the same weight?",
        "We ship about fifty boxes a month to {place}, can you make an offer?",
        "How much would insurance for a {thing} be?",
    ),
}
SHOPS = ("Bookhaven", "Garden & Co", "Lumo Lights", "the Pen Shop", "Velora", "Northwind Sports", "Tealeaf")
PLACES = ("Leeds", "Porto", "Graz", "Utrecht", "Malmo", "Dublin", "Ghent", "Bergen", "Turin", "Brno", "Cork", "Lille")
STREETS = ("12 Mill Lane", "5 Harbour Road", "88 Station Street", "3 Rose Court", "41 Kings Walk", "7 Old Quay")
THINGS = ("lamp", "mirror", "teapot", "keyboard", "vase", "chair", "printer", "bicycle helmet", "guitar", "clock")
DAYS = ("yesterday", "on Monday", "on Tuesday", "on Wednesday", "on Thursday", "on Friday", "on Saturday", "last week")
DATES = ("tomorrow", "on Monday", "on Tuesday", "on Wednesday", "on Thursday", "on Friday", "on Saturday", "next week")
BEFORE = ("", "", "Hello! ", "Good morning. ", "Hi, me again. ", "Dear team, I have a request. ", "Short question: ")
AFTER = (
    "",
    "",
    " Thank you very much, Nora",
    " Please call me back about this.",
    " I wrote to you before and got no reply.",
    " It is rather urgent for us.",
    " Best regards from a customer of many years.",
    " Sent while travelling, sorry for typing errors.",
    " My number is in your files.",
)
HELDOUT = 4  # of the wordings of each topic, the last ones

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["topic", "parcel"],
    "properties": {
        "topic": {"enum": list(TOPICS)},
        "parcel": {"type": ["string", "null"], "maxLength": 12},
    },
}
INSTRUCTIONS = (
    "You sort messages of a parcel service's customers. topic: tracking = where a parcel is; new_address; new_date; "
    "damaged; missing_item; refund = money back; invoice; return_label = sending something back; complaint = about a "
    "driver or the service; price = what sending costs. parcel: its number, such as PX-48213, or null if none is given."
)


def examples(*, training: int = 300, heldout: int = 48) -> list[dict[str, Any]]:
    """Rows for POST /api/skills: different messages, those held out in wordings of their own."""
    draw = random.Random(7)
    train = _rows(draw, [(t, w) for t, words in TOPICS.items() for w in words[:-HELDOUT]], training, "train")
    held = _rows(draw, [(t, w) for t, words in TOPICS.items() for w in words[-HELDOUT:]], heldout, "heldout")
    return [*train, *held]


def _rows(draw: random.Random, wordings: list[tuple[str, str]], count: int, split: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    turn = 0
    while len(rows) < count:
        topic, wording = wordings[turn % len(wordings)]
        turn += 1
        number = f"P{draw.choice('XQT')}-{draw.randrange(10_000, 99_999)}"
        body = wording.format(
            n=number,
            shop=draw.choice(SHOPS),
            place=draw.choice(PLACES),
            street=draw.choice(STREETS),
            thing=draw.choice(THINGS),
            day=draw.choice(DAYS),
            date=draw.choice(DATES),
        )
        before, after = draw.choice(BEFORE), draw.choice(AFTER)
        text = before + body + ("." if after and body[-1].isalnum() else "") + after
        if text in seen:
            if turn > 100 * count:
                raise ValueError("There are not enough different messages.")
            continue
        seen.add(text)
        parcel = number if number in text else None
        rows.append({"input": text, "output": {"topic": topic, "parcel": parcel}, "split": split, "group": wording})
    return rows
