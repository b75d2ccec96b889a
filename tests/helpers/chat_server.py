"""A chat endpoint that answers by a script: well, badly, late or not at all."""

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from examples.llm_server import given_grade, written_query

GUARD = 300  # seconds: a test that waits for so long hangs


class Server:
    """A chat endpoint: answers by a script of behaviours, then by the passages' text backwards; counts what it gets.

    A prompt that asks for a query gets one with words of the passage, and one that asks for a grade gets that.
    """

    def __init__(self, script=(), delay: float = 0.0, together: int = 0):
        self.script, self.delay = iter(script), delay
        self.gate = threading.Barrier(together, timeout=GUARD) if together else None  # so many are answered at a time
        self.closing = threading.Event()
        self.free = threading.Event()  # requests are answered
        self.free.set()
        self.hold, self.release = self.free.clear, self.free.set
        self.lock, self.in_flight, self.most, self.asked = threading.Lock(), 0, 0, Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two packets: the second would wait for 40 ms

            def log_message(self, *_):
                pass

            def do_POST(self):
                outer.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with self.lock:
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            self.asked[text] += 1
            behaviour = next(self.script, "good")
        time.sleep(self.delay)
        self.free.wait(GUARD)
        if self.gate:
            self.gate.wait()
        with self.lock:
            self.in_flight -= 1
        passages = re.findall(r"^\[(\d+)\] (.*)$", text, re.MULTILINE)
        ranking = " > ".join(f"[{number}]" for number, _ in sorted(passages, key=lambda one: one[1][::-1]))
        if "\nWrite one " in text:  # of `distill generate`
            ranking = written_query(text)
        as_shown = " > ".join(f"[{number}]" for number, _ in passages)
        if "grade: NUMBER" in text:  # of `distill judge`
            ranking = given_grade(text)
        replies = {"good": ranking, "empty": "", "prose": f"Sure! The order of all 10: {ranking}. Anything else?"}
        replies["as shown"] = as_shown
        replies |= {"repeated": f"[1] > [1] > {ranking}", "invented": f"[99] > {ranking} > [0]", "refusal": "I cannot."}
        if behaviour == "cut":
            handler.close_connection = True
            handler.connection.close()
            return
        if behaviour == "slow":
            self.closing.wait(GUARD)  # longer than any client waits
        status = behaviour if isinstance(behaviour, int) else 429 if behaviour == "in an hour" else 200
        message = {"choices": [{"message": {"content": replies.get(behaviour, ranking)}}]}
        if behaviour == "only thinks":
            message = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
        if "logprobs" in body and behaviour != "no logprobs":
            message["choices"][0]["logprobs"] = {"content": [{"top_logprobs": self.yes_no(text, behaviour)}]}
        if behaviour == "no json":
            payload = b"<html>"
        else:
            payload = json.dumps(message | {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}).encode()
        try:
            handler.send_response(status)
            if status == 429:
                handler.send_header("Retry-After", "3600" if behaviour == "in an hour" else "0")
            handler.send_header("Content-Length", str(len(payload)))
            handler.end_headers()
            handler.wfile.write(payload)
        except OSError:
            pass  # the client has given up

    @staticmethod
    def yes_no(text: str, behaviour) -> list[dict]:
        """Say yes the more likely, the more bees a passage has; a refusal says neither."""
        yes = 0.1 + 0.8 * text.count("bee") / len(text)
        tokens = {"I": 0.9} if behaviour == "refusal" else {"Yes": yes / 2, " yes": yes / 2, "No": 1 - yes}
        return [{"token": token, "logprob": float(np.log(p))} for token, p in tokens.items()]


def overrides_of(collection, server, *more) -> list[str]:
    names = ("passages", "queries")
    overrides = [*(f"{name}={collection[name]}" for name in names), f"run={collection['first_stage']}"]
    llm = {"base_url": server.url, "model": "judge", "concurrency": 3, "timeout": GUARD, "retries": 3}
    overrides += [f"teacher.llm.{key}={value}" for key, value in llm.items()]
    return [*overrides, "window=4", "stride=2", "journal=none", *more]
