"""A stand-in for an LLM: an OpenAI-compatible endpoint that prefers passages which share words with the query.

Run: python -m examples.llm_server [PORT]
Try every step without a GPU, a key or a network, in a second terminal:

    export PASSAGES=sample/passages.tsv QUERIES=sample/train/queries.tsv TEST_QUERIES=sample/test/queries.tsv
    export QRELS=sample/test/qrels.txt.gz BACKBONE=tiny TRAIN=model.passage_length=93
    LLM_URL=http://127.0.0.1:8000/v1 LLM=stand-in recipes/own-corpus.sh

Prints the address that `teacher.llm.base_url` takes:

    http://127.0.0.1:8000/v1
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions: a listwise prompt with an order, a pointwise one with Yes or No.

    It answers the prompts of `distill generate` with a query made of words of the passage, and those of `distill judge`
    with a grade.
    """

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        if "\nWrite one " in prompt:
            self.reply({"message": {"content": written_query(prompt)}})
            return
        if "grade: NUMBER" in prompt:
            self.reply({"message": {"content": given_grade(prompt)}})
            return
        query = set(words_of(re.search(r"^Query: (.*)$", prompt, re.MULTILINE)[1]))
        passages = re.findall(r"^\[(\d+)\] (.*)$", prompt, re.MULTILINE) or [("1", prompt.partition("\nQuery:")[0])]
        shared = {number: len(query & set(words_of(text))) for number, text in passages}
        yes = 0.05 + 0.9 * shared[passages[0][0]] / len(query)  # of the only passage, where the prompt is pointwise
        logprobs = [{"token": word, "logprob": p} for word, p in (("Yes", yes - 1), ("No", -yes))]
        best_first = sorted(passages, key=lambda passage: (-shared[passage[0]], passage[1]))  # not in the order shown
        answer = " > ".join(f"[{number}]" for number, _ in best_first)
        self.reply({"message": {"content": answer}, "logprobs": {"content": [{"top_logprobs": logprobs}]}})

    def reply(self, choice: dict):
        """Send a completion."""
        payload = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        """Keep quiet about each request."""


def written_query(prompt: str) -> str:
    """Return a query for a passage: words from its beginning and its longest others, in its language."""
    passage, _, task = prompt.removeprefix("Passage: ").rpartition("\nWrite one ")
    if len(re.findall(CHINESE, passage)) * 3 > len(passage):
        pieces = re.findall(f"{CHINESE}+", passage)
        words, forms = [piece[:6] for piece in pieces[:2]], FORMS["chinese"]
    else:
        found = list(dict.fromkeys(re.findall(r"\w+", passage)))
        first = [word for word in found[:12] if len(word) > 3 or word.isdigit()][:4]
        words = first + sorted({*found[12:]} - {*first}, key=lambda word: (-len(word), word))[:2]
        german = {*"der die das den ein eine einer und ist nicht wird werden mit auf von".split()}
        forms = FORMS["german" if len(german & {*passage.lower().split()}) > 1 else "english"]
    kind = next((kind for kind in forms if task.startswith(kind)), "long")
    return forms[kind].format(" ".join(words))


def given_grade(prompt: str) -> str:
    """Return a grade by the share of the query's words, or Chinese characters, that the passage has."""
    query, _, passage = prompt.partition("\nGrade the passage")[0].partition("\nPassage: ")
    words, found = words_of(query.removeprefix("Query: ")), words_of(passage)
    share = sum(word in found for word in words) / max(len(words), 1)
    return f"grade: {sum(share >= least for least in (0.25, 0.5, 0.8))}"


def words_of(text: str) -> list[str]:
    """Return the words of a text, and its Chinese characters."""
    return re.findall(f"{CHINESE}|\\w+", text.lower())


CHINESE = "[\u4e00-\u9fff]"
FORMS = {  # by language, of a query of each type
    "english": {"keyword": "{}", "question": "How does this work: {}?", "long": "I need some help with {}, please."},
    "german": {"keyword": "{}", "question": "Wie geht das: {}?", "long": "Ich brauche Hilfe mit {}, bitte."},
    "chinese": {"keyword": "{}", "question": "{}怎么办？", "long": "我需要帮助：{}，请问怎么办？"},
}

if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()
