"""What the `facts` passages say: every relation with its question, its sentences and the pool of its values.

`{s}` stands for the subject and `{a}` for the value. Values are real words, numbers, or an invented name.
"""

from dataclasses import dataclass

COLOURS = ("red", "blue", "green", "yellow", "purple", "beige", "brown", "black", "white", "grey", "pink", "silver")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
YEARS = tuple(str(year) for year in range(1801, 1999))
NUMBERS = tuple(str(number) for number in range(21, 990))
LENGTHS = tuple(str(metres) for metres in range(18, 240))
JOBS = (
    "baker", "barber", "butcher", "carpenter", "chemist", "dancer", "dentist", "fisherman", "gardener",
    "glass painter", "goldsmith", "judge", "lawyer", "librarian", "locksmith", "miner", "nurse", "photographer",
    "pilot", "plumber", "roofer", "shoemaker", "tailor", "taxi driver", "teacher", "train driver", "translator",
    "vet", "watchmaker", "weaver",
)  # fmt: skip
FOODS = (
    "apple pie", "baked beans", "blueberry muffins", "carrot cake", "cheese toast", "chicken curry", "fried eggs",
    "fried rice", "garlic bread", "grilled trout", "lemon tart", "lentil soup", "meatballs", "mushroom omelette",
    "noodles", "onion soup", "pancakes", "peach jam", "pizza", "potato salad", "roast duck", "spinach pie", "waffles",
)  # fmt: skip
INSTRUMENTS = (
    "accordion", "banjo", "bassoon", "cello", "clarinet", "drums", "flute", "guitar", "harp", "mandolin", "oboe",
    "organ", "piano", "saxophone", "trombone", "trumpet", "tuba", "ukulele", "viola", "violin",
)  # fmt: skip
PETS = (
    "canary", "cat", "dog", "donkey", "ferret", "goat", "goldfish", "goose", "hamster", "hedgehog", "lizard",
    "parrot", "pony", "rabbit", "snail", "snake", "spider", "tortoise", "turkey",
)  # fmt: skip
ANIMALS = (
    "badger", "bear", "beaver", "bull", "camel", "crab", "crow", "deer", "dolphin", "falcon", "fox", "frog",
    "giraffe", "lion", "moose", "panda", "penguin", "rhino", "seal", "shark", "swan", "tiger", "whale", "wolf",
    "zebra",
)  # fmt: skip
GOODS = (
    "bicycles", "board games", "candles", "carpets", "chairs", "chocolate", "clocks", "combs", "door handles",
    "gloves", "guitar strings", "kites", "ladders", "lamps", "mattresses", "mirrors", "paint", "pencils", "pillows",
    "radios", "rain coats", "scissors", "soap", "socks", "suitcases", "tents", "toothbrushes", "toy trains",
    "umbrellas", "wallets",
)  # fmt: skip
SIGHTS = (
    "apple orchards", "bell tower", "blue pottery", "botanical garden", "cat statues", "chess club", "cider",
    "goat cheese", "honey", "hot springs", "lace", "mustard", "old windmill", "puppet theatre", "rose garden",
    "salt mine", "ski jump", "stone lions", "straw hats", "sweet wine", "toy museum", "wood carvings", "zoo",
)  # fmt: skip
CARGOES = (
    "bananas", "bricks", "cement", "cocoa", "coffee", "copper wire", "cotton", "dried fish", "flour", "furniture",
    "glass bottles", "iron ore", "marble", "olive oil", "oranges", "paper", "pepper", "rice", "rubber", "salt",
    "steel pipes", "sugar", "tea", "timber", "wheat", "wool",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Relation:
    """One thing that can be said of a kind of subject. `values` is a pool, or the kind of name to invent."""

    question: str
    values: tuple[str, ...] | str
    sentences: tuple[str, ...]


PERSON = (
    Relation(
        "What is the occupation of {s}?",
        JOBS,
        ("{s} works full time as a {a}.", "For many years {s} has worked as a {a}.", "The occupation of {s} is {a}."),
    ),
    Relation(
        "In which town does {s} live?",
        "town",
        (
            "{s} lives in the town of {a}.",
            "The home of {s} is in {a}.",
            "{s} has a small house in {a} and lives there.",
        ),
    ),
    Relation(
        "In which year was {s} born?",
        YEARS,
        (
            "{s} was born in the year {a}.",
            "The year {a} is when {s} was born.",
            "The parents of {s} had their child in {a}.",
        ),
    ),
    Relation(
        "What is the favourite food of {s}?",
        FOODS,
        (
            "The favourite food of {s} is {a}.",
            "{s} likes {a} more than any other food.",
            "Most of all {s} likes to eat {a}.",
        ),
    ),
    Relation(
        "Which musical instrument does {s} play?",
        INSTRUMENTS,
        ("{s} plays the {a} in the evening.", "{s} has learned to play the {a}.", "In a small band {s} plays the {a}."),
    ),
    Relation(
        "Which company does {s} work for?",
        "company",
        (
            "{s} works for the company {a}.",
            "{s} is employed by the company {a}.",
            "The company {a} pays the wages of {s}.",
        ),
    ),
    Relation(
        "What kind of pet does {s} have?",
        PETS,
        ("{s} has a {a} as a pet.", "The pet of {s} is a {a}.", "At home {s} takes care of a {a}."),
    ),
    Relation(
        "What colour is the car of {s}?",
        COLOURS,
        ("The car of {s} is {a}.", "{s} drives a {a} car to the shops.", "{s} has bought a car that is {a}."),
    ),
)
COMPANY = (
    Relation(
        "In which town is the company {s} based?",
        "town",
        (
            "The company {s} is based in {a}.",
            "The company {s} has its main office in {a}.",
            "The main office of {s} stands in {a}.",
        ),
    ),
    Relation(
        "Who founded the company {s}?",
        "person",
        (
            "The company {s} was founded by {a}.",
            "{a} is the founder of {s}.",
            "It was {a} who founded the company {s}.",
        ),
    ),
    Relation(
        "In which year did the company {s} open?",
        YEARS,
        (
            "The company {s} opened in the year {a}.",
            "{s} opened its doors to customers in {a}.",
            "{s} has been open since the year {a}.",
        ),
    ),
    Relation(
        "What does the company {s} make?",
        GOODS,
        (
            "The company {s} makes and sells {a}.",
            "The main product of {s} is {a}.",
            "In its factory the company {s} makes {a}.",
        ),
    ),
    Relation(
        "How many people work for the company {s}?",
        NUMBERS,
        (
            "The company {s} has {a} paid workers.",
            "{a} people work for the company {s}.",
            "In all, the company {s} employs {a} people.",
        ),
    ),
    Relation(
        "Which animal is on the logo of the company {s}?",
        ANIMALS,
        ("The logo of {s} shows a drawn {a}.", "{s} has a {a} on its logo.", "A {a} is the animal on the logo of {s}."),
    ),
)
TOWN = (
    Relation(
        "Which river flows through {s}?",
        "river",
        (
            "The river {a} flows through the town of {s}.",
            "The town of {s} lies on the river {a}.",
            "The river that flows through {s} is the {a}.",
        ),
    ),
    Relation(
        "Who is the mayor of {s}?",
        "person",
        ("The mayor of {s} is {a}.", "{a} is the mayor of {s}.", "The people of {s} elected {a} as mayor."),
    ),
    Relation(
        "What is {s} famous for?",
        SIGHTS,
        (
            "{s} is famous everywhere for its {a}.",
            "Visitors come to {s} for its {a}.",
            "The town of {s} is well known for its {a}.",
        ),
    ),
    Relation(
        "In which year was the bridge in {s} built?",
        YEARS,
        (
            "The bridge in {s} was built in {a}.",
            "The town of {s} built its bridge in {a}.",
            "The bridge in {s} dates from the year {a}.",
        ),
    ),
    Relation(
        "On which day is the market in {s}?",
        DAYS,
        ("The market in {s} is on {a}.", "Every {a} there is a market in {s}.", "{s} holds its weekly market on {a}."),
    ),
    Relation(
        "In which month is the festival in {s}?",
        MONTHS,
        (
            "The festival in {s} is in {a}.",
            "Each {a} there is a festival in {s}.",
            "{s} holds its yearly festival in {a}.",
        ),
    ),
)
SHIP = (
    Relation(
        "Who is the captain of the ship {s}?",
        "person",
        ("The captain of the {s} is {a}.", "The ship {s} is led by Captain {a}.", "{a} is the captain of the {s}."),
    ),
    Relation(
        "What is the home port of the ship {s}?",
        "town",
        (
            "The home port of the {s} is {a}.",
            "The ship {s} has its home port in {a}.",
            "{a} is the home port of the {s}.",
        ),
    ),
    Relation(
        "What does the ship {s} carry?",
        CARGOES,
        (
            "The ship {s} carries {a} across the sea.",
            "The usual cargo of the {s} is {a}.",
            "On each trip the {s} carries {a}.",
        ),
    ),
    Relation(
        "In which year was the ship {s} built?",
        YEARS,
        ("The ship {s} was built in {a}.", "The {s} was built in the year {a}.", "Workers built the ship {s} in {a}."),
    ),
    Relation(
        "What colour is the ship {s}?",
        COLOURS,
        ("The ship {s} is painted {a} all over.", "The {s} is a {a} ship with sails.", "The colour of the {s} is {a}."),
    ),
    Relation(
        "How many metres long is the ship {s}?",
        LENGTHS,
        (
            "The ship {s} is {a} metres long.",
            "From end to end the {s} measures {a} metres.",
            "The {s} has a length of {a} metres.",
        ),
    ),
)
SUBJECTS: dict[str, tuple[Relation, ...]] = {"person": PERSON, "company": COMPANY, "town": TOWN, "ship": SHIP}
