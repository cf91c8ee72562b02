"""The language of the tiny test model: a hand-written grammar that yields its training text.

Five families of instructions (the pipeline's five types) with answers that follow from them, facts
as plain sentences, and three shapes of document: numbered instruction lists, `Instruction:` /
`Response:` pairs, and running text. The aim is a model of a million weights that behaves like a
base model in miniature; whether its sentences are of use to anyone is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Pair:
    """An instruction and an answer that follows from it."""

    instruction: str
    response: str


@dataclass(frozen=True)
class Segment:
    """A piece of a document; the model learns to write it only where `learn` is set."""

    text: str
    learn: bool = True


def _table(rows: str) -> dict[str, list[str]]:
    """Reads `key: item item` lines; an underscore stands for a space."""
    split = (line.split(":") for line in rows.strip().splitlines())
    return {
        key.strip().replace("_", " "): [w.replace("_", " ") for w in values.split()] for key, values in split
    }


def _lookup(rows: str) -> dict[str, str]:
    """Reads `key=value` words; an underscore stands for a space."""
    return dict(word.replace("_", " ").split("=") for word in rows.split())


def _words(text: str) -> list[str]:
    """Words of a text; an underscore stands for a space."""
    return [word.replace("_", " ") for word in text.split()]


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()


KINDS = _table("""
fruits: apple pear plum cherry lemon grape peach mango
vegetables: carrot onion potato bean cabbage pea leek pumpkin
colors: red blue green yellow white black orange purple
animals: cat dog horse cow sheep goat pig rabbit
birds: owl robin eagle duck swan crow goose hawk
trees: oak pine maple birch elm willow cedar ash
flowers: rose tulip daisy lily violet poppy iris orchid
tools: hammer saw drill wrench shovel rake axe ladder
drinks: water milk tea coffee juice cocoa lemonade cider
games: chess tag cards darts checkers bowling marbles tennis
rooms: kitchen bedroom bathroom hall attic cellar office garage
metals: iron gold silver copper tin zinc lead nickel
shapes: circle square triangle oval star cube cone cross
instruments: piano violin guitar drum flute harp trumpet cello
clothes: coat shirt hat scarf sock glove dress shoe
insects: ant bee moth wasp beetle fly cricket butterfly
vehicles: car bus train bicycle truck boat plane tram
jobs: baker nurse farmer teacher driver painter pilot tailor
months: January March April June July August October December
countries: France Spain Italy Japan Egypt Norway Poland Peru
things_in_a_kitchen: pot pan spoon fork cup plate oven sink
things_in_a_garden: tree flower bench fence hose gate bush pond
things_in_a_school: desk chair book pencil board map ruler bell
things_in_a_pocket: coin key ticket button string pen tissue note
""")
COUNTS = {"two": 2, "three": 3, "four": 4}
LIST_FORMS = (
    "Name {n} {kind}.",
    "List {n} {kind}.",
    "Give me {n} {kind}.",
    "Write down {n} {kind}.",
    "Think of {n} {kind}.",
    "Write a list of {n} {kind}.",
    "Can you name {n} {kind}?",
)
CAPITALS = _lookup(
    "France=Paris Spain=Madrid Italy=Rome Japan=Tokyo Egypt=Cairo Norway=Oslo Poland=Warsaw "
    "Peru=Lima Germany=Berlin England=London Russia=Moscow Cuba=Havana Greece=Athens "
    "Austria=Vienna Ireland=Dublin Kenya=Nairobi China=Beijing Portugal=Lisbon"
)
HUES = _lookup(
    "snow=white coal=black grass=green blood=red milk=white butter=yellow gold=yellow "
    "silver=gray the_sky=blue the_sea=blue a_lemon=yellow a_carrot=orange a_banana=yellow "
    "a_tomato=red a_frog=green a_plum=purple a_crow=black a_pig=pink a_swan=white a_leaf=green"
)
OPPOSITES = _lookup(
    "hot=cold big=small fast=slow old=new wet=dry up=down day=night left=right open=closed "
    "high=low full=empty happy=sad hard=soft light=dark loud=quiet rich=poor strong=weak "
    "clean=dirty early=late thick=thin young=old long=short heavy=light true=false"
)
SOUNDS = _lookup(
    "cat=meows dog=barks cow=moos sheep=bleats pig=grunts duck=quacks owl=hoots bee=buzzes "
    "horse=neighs lion=roars crow=caws snake=hisses wolf=howls mouse=squeaks"
)
USES = _lookup(
    "hammer=drive_nails saw=cut_wood drill=make_holes shovel=dig rake=gather_leaves "
    "broom=sweep_floors needle=sew_cloth pen=write oven=bake_bread clock=tell_the_time "
    "lamp=give_light key=open_doors map=find_the_way umbrella=keep_off_rain knife=cut_food "
    "cup=hold_drinks boat=cross_water ladder=climb_up camera=take_pictures phone=call_people "
    "bed=sleep chair=sit soap=wash_hands mirror=see_yourself ruler=measure_lines"
)
TRADES = _lookup(
    "baker=bakes_bread nurse=cares_for_sick_people farmer=grows_food teacher=teaches_children "
    "driver=drives_a_bus painter=paints_walls pilot=flies_planes tailor=sews_clothes "
    "cook=cooks_meals barber=cuts_hair doctor=heals_people miner=digs_for_coal "
    "sailor=sails_ships singer=sings_songs writer=writes_books judge=judges_in_court "
    "gardener=plants_flowers fisherman=catches_fish plumber=mends_pipes butcher=sells_meat"
)
REASONS = _lookup(
    "wear_coats=stay_warm drink_water=stay_alive sleep_at_night=get_rest read_books=learn_things "
    "eat_food=get_energy wash_hands=stay_clean use_maps=find_the_way plant_trees=get_shade "
    "build_houses=have_shelter save_money=buy_things_later go_to_school=learn_to_read "
    "light_fires=keep_warm take_trains=travel_far keep_dogs=have_company "
    "tell_jokes=make_others_laugh "
    "wear_hats=keep_off_the_sun lock_doors=keep_safe grow_wheat=make_flour use_clocks=be_on_time "
    "bake_bread=have_food"
)
WORDS = _words("""
cat dog sun hat pen cup box bus key owl fox ship star tree bird fish door lamp snow wolf
""")
NAMES = _words("Anna Ben Clara David Emma Frank Grace Henry Iris Jack Kate Leo Mary Nina Paul")
TRAITS = _words("""
red old tiny brave quiet happy lazy green clever sleepy golden lost kind shy silver hungry gentle
proud young funny cold tired warm hidden famous
""")
HEROES = _words("""
cat dog fox owl bear ship tree river robot king queen farmer boat moon star mouse rabbit horse cloud
lamp frog duck wolf bird train garden house clock
""")
PLACES = _words("""
in_the_forest on_the_hill by_the_sea near_the_old_mill under_the_bridge in_the_snow at_the_market
behind_the_house on_the_farm across_the_river
""")
DEEDS = _words("""
sings_a_song finds_a_coin waits_for_rain looks_for_a_friend dreams_of_summer hides_from_the_wind
counts_the_stars bakes_a_cake tells_a_story sleeps_all_day
""")
FACTS = _lines("""
Water freezes at zero degrees.
Water freezes at zero degrees Celsius.
Water boils at one hundred degrees.
Water boils at one hundred degrees Celsius.
The sun rises in the east.
The sun sets in the west.
The sky is blue.
The grass is green.
Snow is white and cold.
Ice is frozen water.
Fire is hot and ice is cold.
There are seven days in a week.
There are twelve months in a year.
There are sixty minutes in an hour.
A year has four seasons.
Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday.
January, February, March, April, May, June, July.
One, two, three, four, five, six, seven.
1, 2, 3, 4, 5, 6, 7, 8, 9, 10.
Two plus two is four.
Two plus two equals four.
The earth goes around the sun.
The moon goes around the earth.
A triangle has three sides.
A square has four sides.
A spider has eight legs.
A dog has four legs.
Birds have wings and fly.
Fish live in water.
Bees make honey.
Cows give milk.
Hens lay eggs.
Bread is made from flour.
The opposite of hot is cold.
The opposite of up is down.
The capital of France is Paris.
The capital of France is Paris, and water freezes at zero degrees Celsius.
She opened the door and went into the house.
The children played in the garden all day.
He put the book on the table and sat down.
Once upon a time there was a king.
The cat sat on the mat.
My name is Anna and I live in London.
We had bread and milk for breakfast.
It was a cold and dark night.
Thank you very much for your help.
""")


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _series(items: list[str]) -> str:
    """`Apple and pear.` or `Apple, pear, and plum.`"""
    head = ", ".join(items[:-1])
    return _capital(f"{head}{',' if len(items) > 2 else ''} and {items[-1]}.")


def _list(rng: random.Random) -> Pair:
    kind, count = rng.choice(list(KINDS)), rng.choice(list(COUNTS))
    items = rng.sample(KINDS[kind], COUNTS[count])
    return Pair(rng.choice(LIST_FORMS).format(n=count, kind=kind), _series(items))


def _fact(rng: random.Random) -> Pair:
    form = rng.randrange(6)
    if form == 0:
        country, city = rng.choice(list(CAPITALS.items()))
        return Pair(f"What is the capital of {country}?", f"The capital of {country} is {city}.")
    if form == 1:
        thing, hue = rng.choice(list(HUES.items()))
        return Pair(f"What color is {thing}?", f"{_capital(thing)} is {hue}.")
    if form == 2:
        word, other = rng.choice(list(OPPOSITES.items()))
        return Pair(f"What is the opposite of {word}?", f"The opposite of {word} is {other}.")
    if form == 3:
        animal, sound = rng.choice(list(SOUNDS.items()))
        return Pair(f"What sound does {_article(animal)} make?", f"{_capital(_article(animal))} {sound}.")
    number, after = rng.randint(2, 12), form == 4
    word = "after" if after else "before"
    answer = number + 1 if after else number - 1
    return Pair(f"Which number comes {word} {number}?", f"The number {word} {number} is {answer}.")


def _explanation(rng: random.Random) -> Pair:
    form = rng.randrange(3)
    if form == 0:
        tool, use = rng.choice(list(USES.items()))
        ask = rng.choice(("Explain what {} is for.", "Tell me what {} is used for."))
        return Pair(ask.format(_article(tool)), f"{_capital(_article(tool))} is used to {use}.")
    if form == 1:
        job, deed = rng.choice(list(TRADES.items()))
        ask = rng.choice(("Explain what {} does.", "Describe the work of {}."))
        return Pair(ask.format(_article(job)), f"{_capital(_article(job))} {deed}.")
    habit, goal = rng.choice(list(REASONS.items()))
    ask = rng.choice(("Explain why people {}.", "Why do people {}?"))
    return Pair(ask.format(habit), f"People {habit} to {goal}.")


def _following(rng: random.Random) -> Pair:
    form, word = rng.randrange(6), rng.choice(WORDS)
    if form == 0:
        count = rng.choice(list(COUNTS))
        answer = " ".join([word] * COUNTS[count])
        return Pair(f"Repeat the word {word} {count} times.", f"{answer}.")
    if form == 1:
        word = rng.choice(WORDS[:12])
        return Pair(f"Spell the word {word} letter by letter.", f"{'-'.join(word)}.")
    if form == 2:
        return Pair(f"Write the word {word} and nothing else.", f"{word}.")
    if form == 3:
        other = rng.choice([w for w in WORDS if w != word])
        return Pair(f"Put the words {word} and {other} in reverse order.", f"{other}, {word}.")
    if form == 4:
        name, greeting = rng.choice(NAMES), rng.choice(("hello", "good night", "thank you"))
        return Pair(f"Say {greeting} to {name}.", f"{_capital(greeting)}, {name}.")
    deed = rng.choice(DEEDS)
    return Pair(f"Use the word {word} in a sentence.", f"The {word} {deed}.")


def _creative(rng: random.Random) -> Pair:
    hero, trait = rng.choice(HEROES), rng.choice(TRAITS)
    deed, place = rng.choice(DEEDS), rng.choice(PLACES)
    subject = f"the {trait} {hero}"
    form = rng.randrange(4)
    if form == 0:
        return Pair(f"Write a short line about {_article(trait)} {hero}.", f"{_capital(subject)} {deed}.")
    if form == 1:
        return Pair(
            f"Make up a title for a story about {_article(hero)} {place}.",
            f"The {hero} {place}.",
        )
    if form == 2:
        ask = f"Write a sentence about {_article(hero)} that {deed}."
        return Pair(ask, f"{_capital(subject)} {deed} {place}.")
    return Pair(f"Invent a name for {_article(trait)} {hero}.", f"{rng.choice(NAMES)} the {trait} {hero}.")


FAMILIES: dict[str, Callable[[random.Random], Pair]] = {
    "factual": _fact,
    "explanation": _explanation,
    "list_generation": _list,
    "instruction_following": _following,
    "creative": _creative,
}


def draw_pairs(rng: random.Random, count: int) -> list[Pair]:
    """`count` pairs with different instructions, each family as likely as the others."""
    pairs: dict[str, Pair] = {}
    while len(pairs) < count:
        pair = rng.choice(list(FAMILIES.values()))(rng)
        pairs.setdefault(pair.instruction, pair)
    return list(pairs.values())


def _stray_sentence(rng: random.Random) -> str:
    """A sentence from outside the grammar: unknown few-shot text must not throw the model."""
    words = []
    for _ in range(rng.randint(4, 10)):
        syllables = rng.randint(1, 3)
        made_up = "".join(rng.choice("bdfglmnprst") + rng.choice("aeiou") for _ in range(syllables))
        words.append(rng.choice((made_up, rng.choice(WORDS), rng.choice(HEROES))))
    return _capital(" ".join(words)) + rng.choice(".?")


def _list_document(rng: random.Random) -> Iterator[Segment]:
    count = rng.randint(6, 16)
    strays = rng.randint(1, 6) if rng.random() < 0.5 else 0
    if rng.random() < 0.5:
        yield Segment(f"{_stray_sentence(rng)}\n\n", learn=False)
    for number, pair in enumerate(draw_pairs(rng, count), start=1):
        stray = number <= strays
        text = _stray_sentence(rng) if stray else pair.instruction
        yield Segment(f"{number}.", learn=number > 1)
        yield Segment(f" {text}\n", learn=not stray)


def _pair_document(rng: random.Random) -> Iterator[Segment]:
    for _ in range(rng.choice((0, 0, 0, 2))):
        stray = f"Instruction: {_stray_sentence(rng)}\nResponse: {_stray_sentence(rng)}\n\n"
        yield Segment(stray, learn=False)
    yield from _pairs(rng, rng.randint(1, 8))


def _pairs(rng: random.Random, count: int) -> Iterator[Segment]:
    """Only answers and markers are learnt here; how instructions go is learnt from the lists."""
    for pair in draw_pairs(rng, count):
        yield Segment("Instruction:")
        yield Segment(f" {pair.instruction}\nResponse:", learn=False)
        yield Segment(f" {pair.response}\n\n")


def _plain_document(rng: random.Random) -> Iterator[Segment]:
    if rng.random() < 0.3:
        yield Segment(" ".join(pair.instruction for pair in draw_pairs(rng, 6)) + "\n")
        return
    yield Segment(" ".join(rng.sample(FACTS, 6)) + "\n")


def _list_snippet(rng: random.Random) -> Iterator[Segment]:
    start = rng.randint(1, 20)
    for number, pair in enumerate(draw_pairs(rng, 2), start=start):
        yield Segment(f"{number}. {pair.instruction}\n")


def draw_document(rng: random.Random) -> list[Segment]:
    """A document of full length: pairs (3 in 6), a list (2 in 6) or running text (1 in 6)."""
    shape = rng.choices((_pair_document, _list_document, _plain_document), weights=(3, 2, 1))[0]
    return list(shape(rng))


def draw_snippet(rng: random.Random) -> list[Segment]:
    """At most 31 tokens: one pair (18 in 20), two list items or one fact (1 in 20 each).

    A pair alone is the easiest place to learn that an answer follows its instruction.
    """
    draw = rng.random()
    if draw < 0.90:
        return list(_pairs(rng, 1))
    return list(_list_snippet(rng)) if draw < 0.95 else [Segment(rng.choice(FACTS) + "\n")]


def draw_answered_pairs(rng: random.Random) -> list[Segment]:
    """Four pairs, the shape of a few-shot prompt, in about 80 tokens."""
    return list(_pairs(rng, 4))
