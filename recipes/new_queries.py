"""Print the test queries, `id<TAB>text`, that do not nearly repeat a training query.

python -m recipes.new_queries queries.test.tsv queries.train.tsv > queries.new.tsv

A query repeats another if they share 75% of the words that either has (Jaccard): "when did martial law in the
philippines end" and "when did martial law ended in the philippines" share 78%.
"""

import re
import sys
from collections import Counter, defaultdict

from distill.sources.texts import read_queries

LEAST = 0.75

test, train = (read_queries(path) for path in sys.argv[1:])
words_of = [frozenset(re.findall(r"\w+", text.lower())) for text in train.values()]
holders = defaultdict(list)  # word -> training queries that have it
for index, words in enumerate(words_of):
    for word in words:
        holders[word].append(index)
for query_id, text in test.items():
    words = frozenset(re.findall(r"\w+", text.lower()))
    shared = Counter(index for word in words for index in holders[word])
    if not any(num / len(words | words_of[index]) >= LEAST for index, num in shared.items()):
        print(query_id, text, sep="\t")
