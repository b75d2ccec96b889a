"""Let an LLM rank two lists from Python. It answers over HTTP; here a stand-in does, in a thread of this process.

Run: python -m examples.annotate_lists

Prints each query's passages in the LLM's order, and what that took:

    how do bees find home: bees find the sun, ants find food, trains follow rails
    what do trains follow: trains follow rails, trains stop, bees sleep
    2 requests, 200 tokens in, 20 out; asked again: 0 requests
"""

import tempfile
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

from omegaconf import OmegaConf

from distill.teachers.endpoint import HttpEngine
from distill.teachers.journal import Journal
from distill.teachers.listwise import WindowRanker, Windows
from distill.teachers.prompt import read_prompt
from examples.llm_server import Handler

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
options = OmegaConf.merge(OmegaConf.load("conf/llm/http.yaml"), {"model": "stand-in", "max_tokens": 256})
options.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
prompt = read_prompt("distill/teachers/prompts/listwise.yaml")
lists = {
    "q1": ("how do bees find home", ["trains follow rails", "ants find food", "bees find the sun"]),
    "q2": ("what do trains follow", ["bees sleep", "trains stop", "trains follow rails"]),
}

with tempfile.TemporaryDirectory() as directory:
    for attempt in range(2):  # the second time, every answer comes from the journal
        with Journal(Path(directory) / "journal.jsonl") as journal:
            windows = Windows("listwise", size=20, stride=10, passes=1)
            ranker = WindowRanker(HttpEngine(options, "listwise"), "stand-in", journal, prompt, windows, tries=3)
            orders = {query_id: order for query_id, order, *_ in ranker.rank(lists, allowed=lambda totals: True)}
        if attempt == 0:
            first = ranker.totals
server.shutdown()
for query_id, (query, passages) in lists.items():
    print(f"{query}: {', '.join(passages[place] for place in orders[query_id])}")
print(f"{first.requests} requests, {first.tokens_in} tokens in, {first.tokens_out} out; "
      f"asked again: {ranker.totals.requests} requests")  # fmt: skip
