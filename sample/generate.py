"""Write the bundled sample, a miniature Rank-DistiLLM about an invented cookbook: python sample/generate.py

A passage is a short blurb about a dish of one kind with three facets out of four (ingredient, origin, season, taste);
each value can be said in five ways, common to rare, and one of the four things is said twice. A query asks for a kind
and two facets in words of its own. BM25 sees only the words; the simulated listwise teacher knows what they all mean,
and ranks by it with a little noise. A student has to learn the words from the teacher's rankings, and rare ones take
many of them. Standard library only; every run writes the same files.
"""

import gzip
import math
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SEED = 7
SPLITS = {"train": (400, 1200), "val": (50, 400), "test": (100, 700)}  # split: (queries, passages)
DEPTH = 100  # passages per query in both runs
TEACHER_NOISE = 0.35  # standard deviation of the noise on the teacher's scores, whose scale is that of the grades
COMMONNESS = [5, 4, 3, 2, 2]  # how often each of a value's five wordings is used, relative to the others
K1, B = 0.9, 0.4  # BM25

KIND = {
    "soup": ["soup", "broth", "chowder", "bisque", "potage"],
    "stew": ["stew", "casserole", "ragout", "goulash", "hotpot"],
    "pie": ["pie", "quiche", "galette", "pasty", "strudel"],
    "bread": ["loaf", "flatbread", "focaccia", "baguette", "sourdough"],
    "salad": ["salad", "slaw", "tabbouleh", "panzanella", "coleslaw"],
    "sandwich": ["sandwich", "toastie", "panini", "hoagie", "bagel"],
}

# facet -> value -> its wordings. All wordings of a facet fit the same gaps in the sentences below.
FACETS = {
    "ingredient": {
        "mushroom": ["mushrooms", "chanterelles", "porcini", "morels", "shiitake"],
        "fish": ["fish", "salmon", "trout", "haddock", "mackerel"],
        "poultry": ["chicken", "turkey", "poultry", "duck", "quail"],
        "cheese": ["cheese", "cheddar", "feta", "gouda", "halloumi"],
        "fruit": ["apples", "pears", "quinces", "plums", "apricots"],
        "pulses": ["lentils", "chickpeas", "beans", "peas", "dal"],
    },
    "origin": {
        "Italy": ["Italy", "Tuscany", "Naples", "Sicily", "Liguria"],
        "India": ["India", "Bengal", "Kerala", "Punjab", "Goa"],
        "Mexico": ["Mexico", "Oaxaca", "Yucatan", "Puebla", "Jalisco"],
        "Japan": ["Japan", "Kyoto", "Osaka", "Hokkaido", "Okinawa"],
        "Morocco": ["Morocco", "Fez", "Marrakesh", "Rabat", "Tangier"],
    },
    "season": {
        "spring": ["spring", "April", "May", "March", "springtime"],
        "summer": ["summer", "July", "August", "June", "midsummer"],
        "autumn": ["autumn", "October", "November", "September", "fall"],
        "winter": ["winter", "January", "February", "December", "midwinter"],
    },
    "taste": {
        "spicy": ["spicy", "fiery", "peppery", "hot", "piquant"],
        "sour": ["sour", "tangy", "lemony", "sharp", "vinegary"],
        "sweet": ["sweet", "sugary", "honeyed", "syrupy", "candied"],
        "smoky": ["smoky", "charred", "woody", "toasted", "ashy"],
        "mild": ["mild", "gentle", "delicate", "mellow", "subtle"],
    },
}

# Every sentence of a passage has four words, so that its length tells nothing of what it says.
SAYS = {
    "kind": ["Here is a {}.", "Makes a fine {}.", "Call this a {}.", "Just a good {}."],
    "ingredient": ["Built mostly on {}.", "Plenty of fresh {}.", "Buy the best {}.", "Chop up some {}."],
    "origin": ["Straight out of {}.", "A classic from {}.", "Known all over {}."],
    "season": ["Always welcome in {}.", "Best eaten in {}.", "Much loved in {}."],
    "taste": ["It comes out {}.", "Every bite is {}.", "Expect it rather {}."],
}

FILLERS = [
    "Salt it quite late.",
    "Taste as you go.",
    "Children ask for seconds.",
    "Nobody knows who began.",
    "Always trust your nose.",
    "It looks rather modest.",
    "Never mind its shape.",
    "It keeps its colour.",
    "Read all this twice.",
    "My neighbour swears so.",
    "It photographs quite badly.",
    "Share while you can.",
    "A little practice helps.",
    "Use your largest dish.",
]

# How a query asks for a facet; a taste stands before the kind.
ASKS = {
    "ingredient": ["with {}", "that uses {}", "made of {}"],
    "origin": ["from {}", "the way of {}", "as served in {}"],
    "season": ["to eat in {}", "for {}", "that suits {}"],
}
OPENINGS = ["", "", "recipe for a ", "how to make a ", "looking for a ", "ideas for a ", "is there a ", "i need a "]


def main():
    rng = random.Random(SEED)
    num_passages = sum(passages for _, passages in SPLITS.values())
    doc_ids = [f"p{number:04d}" for number in range(num_passages)]
    query_ids = [f"q{number:03d}" for number in range(sum(queries for queries, _ in SPLITS.values()))]
    rng.shuffle(doc_ids)  # an id says nothing about split or content
    rng.shuffle(query_ids)
    passages, asked = {}, set()
    for split, (num_queries, num_split_passages) in SPLITS.items():
        dishes = {doc_ids.pop(): draw_dish(rng) for _ in range(num_split_passages)}
        texts = {doc_id: write_passage(rng, dish) for doc_id, dish in sorted(dishes.items())}
        passages |= texts
        write_split(rng, split, [query_ids.pop() for _ in range(num_queries)], dishes, texts, asked)
    assert len(set(passages.values())) == num_passages
    write_lines(FOLDER / "passages.tsv", (f"{doc_id}\t{text}" for doc_id, text in sorted(passages.items())))


def draw_dish(rng):
    """A dish: the value of its kind and of three facets."""
    dish = {"kind": rng.choice(list(KIND))}
    for facet in rng.sample(list(FACETS), 3):
        dish[facet] = rng.choice(list(FACETS[facet]))
    return dish


def write_passage(rng, dish):
    """A sentence for the kind and each facet, one of them said again in other words, and filler, in random order."""
    sentences = rng.sample(FILLERS, rng.choice([1, 2]))
    twice = rng.choice(list(dish))
    for facet, value in dish.items():
        times = 2 if facet == twice else 1
        words, templates = draw_words(rng, facet, value, times), rng.sample(SAYS[facet], times)
        sentences += [template.format(word) for template, word in zip(templates, words, strict=True)]
    rng.shuffle(sentences)
    return fix_articles(" ".join(sentences))


def wordings(facet):
    return KIND if facet == "kind" else FACETS[facet]


def draw_words(rng, facet, value, count=1):
    """Different wordings of a value; the first is the most common."""
    left = dict(zip(wordings(facet)[value], COMMONNESS, strict=True))
    drawn = []
    for _ in range(count):
        drawn += rng.choices(list(left), weights=left.values())
        del left[drawn[-1]]
    return drawn


def fix_articles(text):
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


def write_split(rng, split, query_ids, dishes, texts, asked):
    """Queries, first-stage run, teacher run and qrels of one split; `asked` holds what earlier queries ask for."""
    first_stage = BM25(texts)
    queries, first_stage_run, teacher_run, qrels = [], [], [], []
    for query_id in sorted(query_ids):
        while True:
            wanted = draw_wanted(rng, rng.choice(list(dishes.values())))
            query = write_query(rng, wanted)
            ranking = first_stage.search(query)
            grades = {doc_id: grade(dish, wanted) for doc_id, dish in dishes.items()}
            if len(ranking) == DEPTH and frozenset(wanted.items()) not in asked and 3 in grades.values():
                break
        asked.add(frozenset(wanted.items()))
        queries.append(f"{query_id}\t{query}")
        first_stage_run += run_lines(query_id, ranking, "bm25")
        teacher_run += run_lines(query_id, rank_as_teacher(rng, wanted, dishes, ranking), "teacher")
        judged = [doc_id for doc_id, label in grades.items() if label or rng.random() < 0.01]
        qrels += [f"{query_id} 0 {doc_id} {grades[doc_id]}" for doc_id in sorted(judged)]
    write_lines(FOLDER / split / "queries.tsv", queries)
    write_lines(FOLDER / split / "first_stage.run.gz", first_stage_run)
    write_lines(FOLDER / split / "teacher.run.gz", teacher_run)
    write_lines(FOLDER / split / "qrels.txt.gz", qrels)


def draw_wanted(rng, dish):
    """The kind and two facets of a dish that exists."""
    facets = rng.sample([facet for facet in dish if facet != "kind"], 2)
    return {facet: dish[facet] for facet in ["kind", *facets]}


def write_query(rng, wanted):
    words = {facet: draw_words(rng, facet, value)[0] for facet, value in wanted.items()}
    before = words["taste"] + " " if "taste" in words else ""
    after = [" " + rng.choice(ASKS[facet]).format(words[facet]) for facet in words if facet not in ("kind", "taste")]
    return fix_articles(rng.choice(OPENINGS) + before + words["kind"] + "".join(after)).lower()


def grade(dish, wanted):
    """3: kind and both facets; 2: kind and one facet; 1: both facets in a dish of another kind; 0: anything else."""
    num_facets = sum(dish.get(facet) == value for facet, value in wanted.items() if facet != "kind")
    if dish["kind"] == wanted["kind"]:
        return [0, 2, 3][num_facets]
    return 1 if num_facets == 2 else 0


def rank_as_teacher(rng, wanted, dishes, ranking):
    """The same passages by their grade plus noise; where the grade is 0, a part of what is asked for counts a bit."""
    scores = {}
    for doc_id, _ in ranking:
        num_matches = sum(dishes[doc_id].get(facet) == value for facet, value in wanted.items())
        merit = grade(dishes[doc_id], wanted) or 0.4 * num_matches
        scores[doc_id] = merit + rng.gauss(0.0, TEACHER_NOISE)
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    previous = math.inf
    reranked = []
    for doc_id, score in ordered:
        previous = round(min(score, previous - 0.001), 3)  # strictly decreasing, also after rounding
        reranked.append((doc_id, previous))
    return reranked


class BM25:
    """Okapi BM25 over words as they stand: no stemming, no stop words."""

    def __init__(self, texts):
        self.postings = defaultdict(list)  # word -> [(doc_id, its weight in the passage)]
        counts = {doc_id: Counter(split_words(text)) for doc_id, text in texts.items()}
        mean_length = sum(count.total() for count in counts.values()) / len(counts)
        for doc_id, count in counts.items():
            norm = K1 * (1 - B + B * count.total() / mean_length)
            for word, frequency in count.items():
                self.postings[word].append((doc_id, frequency * (K1 + 1) / (frequency + norm)))
        self.num_passages = len(counts)

    def search(self, query):
        """The DEPTH best passages as (doc_id, score), best first."""
        scores = defaultdict(float)
        for word in split_words(query):
            postings = self.postings.get(word, [])
            idf = math.log(1 + (self.num_passages - len(postings) + 0.5) / (len(postings) + 0.5))
            for doc_id, weight in postings:
                scores[doc_id] += idf * weight
        ordered = sorted(((doc_id, round(score, 3)) for doc_id, score in scores.items()), key=lambda x: (-x[1], x[0]))
        return ordered[:DEPTH]


def split_words(text):
    return re.findall(r"[a-z]+", text.lower())


def run_lines(query_id, ranking, name):
    assert len(ranking) == DEPTH
    return [f"{query_id} Q0 {doc_id} {rank} {score:.3f} {name}" for rank, (doc_id, score) in enumerate(ranking, 1)]


def write_lines(path, lines):
    path.parent.mkdir(exist_ok=True)
    text = "".join(line + "\n" for line in lines).encode()
    # No time and no name in the gzip header: the same content gives the same bytes.
    path.write_bytes(gzip.compress(text, compresslevel=9, mtime=0) if path.suffix == ".gz" else text)


if __name__ == "__main__":
    main()
