"""What the server does for a request, without the addresses: admit it, check it, score it, write the answer.

service = Service(cfg, load)
service.start()                                     # loads the model in a thread; until then requests are refused
answer = await service.answer("/rerank", body, gone)
service.stop()
"""

import asyncio
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.config.command_schema import ServeConfig
from distill.secrets import for_others
from distill.serving.batching import Batcher, Pair, ScoreList
from distill.serving.dialects import Asked, Dialect, Scored, choose_dialect
from distill.serving.metrics import Metrics
from distill.serving.refusals import Refused

if TYPE_CHECKING:
    from distill.serving.scoring import Scorer

log = logging.getLogger(__name__)

PREPARING = 4  # threads that read and tokenise requests: one with very long texts does not hold up the others


def _name_of(model: str) -> str:
    """Return the name of a model without the path to it, of one on the Hub with its owner."""
    return Path(model).resolve().name if os.path.isdir(model) else for_others(model)


class Service:
    """One model and the requests in flight."""

    def __init__(self, cfg: ServeConfig, load: Callable[[ServeConfig], "Scorer"]):
        """Take the configuration and the function that loads the model."""
        self.cfg, self.load = cfg, load
        self.names = list(cfg.names or [_name_of(cfg.model)])  # the first is the one in answers
        self.started = int(time.time())
        self.metrics = Metrics()
        self.scorer: Scorer | None = None
        self.batcher: Batcher | None = None
        self.failure: BaseException | None = None  # what loading has raised
        self.failed: Callable[[], object] = lambda: None  # is called then, in the loading thread
        self.loading = threading.Thread(target=self._load, name="loading", daemon=True)
        self.preparing = ThreadPoolExecutor(PREPARING, thread_name_prefix="preparing")
        self.in_flight = 0
        self.num_answered = 0

    def start(self) -> None:
        """Begin to load the model."""
        self.loading.start()

    def stop(self) -> None:
        """Finish what is being scored, and end the threads."""
        self.metrics.ready.set(0)
        if self.batcher is not None:
            self.batcher.close()
        self.preparing.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> None:
        started = time.monotonic()
        try:
            scorer = self.load(self.cfg)
        except BaseException as error:  # raised again by the main thread
            self.failure = error
            self.failed()
            return
        self.scorer = scorer
        self.batcher = Batcher(scorer.score, scorer.max_tokens, self.cfg.max_wait, self.metrics.note_batch)
        self.metrics.ready.set(1)
        log.info("ready after %.1f s: %s", time.monotonic() - started, scorer.model.describe())

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded and its thread runs."""
        return self.batcher is not None and self.batcher.thread.is_alive()

    def check_ready(self) -> None:
        """Raise Refused while the model is being loaded."""
        if not self.is_ready:
            raise Refused(503, "the model is being loaded: ask again, /health says when it is ready")

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request as in flight; raises Refused while the model is loading, and for too many at once."""
        self.check_ready()
        if self.in_flight >= self.cfg.max_queue:
            raise Refused(503, f"{self.in_flight} requests are waiting (max_queue={self.cfg.max_queue}): ask again")
        self.in_flight += 1
        self.metrics.in_flight.set(self.in_flight)
        try:
            yield
        finally:
            self.in_flight -= 1
            self.metrics.in_flight.set(self.in_flight)

    async def answer(self, path: str, body: bytes, gone: Callable[[], Awaitable[object]]) -> Any:
        """Return the answer to a request, as what its JSON is made of.

        gone: returns once nobody waits for the answer any more; what is left of the request is then dropped, and
        asyncio.CancelledError raised. Raises Refused.
        """
        assert self.scorer is not None and self.batcher is not None, "within admitted"
        loop = asyncio.get_running_loop()
        dialect, asked, pairs = await loop.run_in_executor(self.preparing, self._prepare, path, body)
        scores, num_tokens = await self._score(pairs, gone, self.scorer.list_scorer(asked))
        order, returned = self.scorer.rank(asked, scores)
        self.num_answered += 1
        return dialect.write(asked, Scored(returned, order, num_tokens, self.names[0]))

    async def _score(
        self,
        pairs: list[Pair],
        gone: Callable[[], Awaitable[object]],
        score_list: ScoreList | None,
    ) -> tuple[np.ndarray, int]:
        """Return the scores [P] of pairs, and how many tokens were read for them."""
        assert self.batcher is not None
        job = self.batcher.submit(pairs, score_list)
        scored, left = asyncio.wrap_future(job.future), asyncio.ensure_future(gone())
        try:
            await asyncio.wait({scored, left}, return_when=asyncio.FIRST_COMPLETED)
            if not scored.done():
                raise asyncio.CancelledError("the client is gone")
            return scored.result(), job.num_tokens
        finally:
            left.cancel()
            if not scored.done():
                self.batcher.drop(job)
                scored.cancel()

    def _prepare(self, path: str, body: bytes) -> tuple[Dialect, Asked, list[Pair]]:
        """Read, check and tokenise a request; in a thread, since a large one takes time."""
        assert self.scorer is not None
        read = read_json(body)
        dialect = choose_dialect(path, read)
        asked = dialect.read(read)
        self._check(asked)
        self.scorer.check(asked)
        return dialect, asked, self.scorer.encode(asked)

    def _check(self, asked: Asked) -> None:
        """Raise Refused for another model than the one served, and for too many or too long texts."""
        if asked.model is not None and asked.model not in self.names:
            raise Refused(404, f"model={asked.model[:80]}: is not served here: send {' or '.join(self.names)}, or none")
        if len(asked.passages) > self.cfg.max_passages:
            raise Refused(
                413, f"{len(asked.passages)} passages: send at most {self.cfg.max_passages} at once (max_passages)"
            )
        for name, texts in (("query", asked.queries), ("passage", asked.passages)):
            for index, text in enumerate(texts):
                if len(text) > self.cfg.max_characters:
                    raise Refused(
                        413,
                        f"{name} {index} has {len(text)} characters: send at most {self.cfg.max_characters} "
                        "(max_characters)",
                    )

    def describe(self) -> dict[str, Any]:
        """Return what /info says, under the names of text-embeddings-inference where it has them."""
        from distill import __version__

        assert self.scorer is not None
        return {
            "model_id": self.names[0],
            **self.scorer.describe(),
            "max_concurrent_requests": self.cfg.max_queue,
            "max_client_batch_size": self.cfg.max_passages,
            "auto_truncate": True,
            "version": __version__,
        }

    def list_models(self) -> dict[str, Any]:
        """Return what /v1/models says: the names that requests may ask for."""
        assert self.scorer is not None
        length = self.scorer.model.max_length
        common = {"object": "model", "created": self.started, "owned_by": "distill", "max_model_len": length}
        return {"object": "list", "data": [{"id": name, **common} for name in self.names]}


def read_json(body: bytes) -> Any:
    """Return what a body says; raises Refused for one that is not JSON, or that holds numbers which JSON has not."""

    def refuse(constant: str) -> None:
        raise Refused(400, f"the body is not JSON: {constant} is no number there")

    try:
        return json.loads(body, parse_constant=refuse)
    except RecursionError:
        raise Refused(400, "the body is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:  # of the decoder, or of bytes that are not UTF-8
        raise Refused(400, f"the body is not JSON: {' '.join(str(error).split())[:120]}") from None
