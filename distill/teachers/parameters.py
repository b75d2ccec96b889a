"""The parameters of requests to an endpoint, adapted to what it refuses.

    parameters = Parameters(cfg.teacher.llm, options, logprobs=False)
    sent = parameters.current()                     # {"temperature": 0.0, "max_tokens": 256}
    parameters.adapt(sent, reason)                  # whether the endpoint's reason names one that can be changed

Some endpoints want max_completion_tokens, allow no temperature, or list fewer tokens than asked for: each complaint is
answered once, with parameters that they take. What `teacher.llm.body` sets is sent as it is.
"""

import logging
import re
import threading
from typing import Any

from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)

TOP_LOGPROBS = 20  # likeliest tokens that an endpoint lists; most endpoints allow no more
FEWEST_LOGPROBS = 5  # if the endpoint does not say how many it lists


class Parameters:
    """The parameters that all requests share; several threads may adapt them."""

    def __init__(self, cfg: DictConfig, options: dict, *, logprobs: bool):
        """Take the options (temperature, max_tokens) and teacher.llm.body, in which null removes a parameter."""
        self.fixed: dict[str, Any] = body_of(cfg)
        self.lock = threading.Lock()
        self.values = {name: options[name] for name in ("temperature", "max_tokens")}
        if "max_completion_tokens" in self.fixed:
            del self.values["max_tokens"]
        if logprobs:
            self.values |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        self.adapted: list[str] = []  # what was changed, in words

    def current(self) -> dict:
        """Return the parameters of the next request."""
        with self.lock:
            values = self.values | self.fixed
        return {name: value for name, value in values.items() if value is not None}

    def adapt(self, sent: dict, reason: str) -> bool:
        """Change what an endpoint complains about; return whether a request that was sent so should be sent again."""
        with self.lock:
            for name, what, changed in _answers_to(reason, self.values):
                if name not in self.fixed:
                    self.values = changed
                    self.adapted.append(what)
                    log.info("the endpoint refuses %s: %s", name, what)
                    return True
        return self.current() != sent  # another thread was faster


def body_of(cfg: DictConfig) -> dict[str, Any]:
    """Return the fields that teacher.llm.body adds to each request."""
    body = OmegaConf.to_container(cfg.body, resolve=True) if cfg.body is not None else {}
    assert isinstance(body, dict)
    return {str(name): value for name, value in body.items()}


def _answers_to(reason: str, values: dict):
    """Yield parameter, change in words, and the changed values for what the reason names."""
    if "max_completion_tokens" in reason and "max_tokens" in values:
        others = {name: value for name, value in values.items() if name != "max_tokens"}
        what = "max_completion_tokens is sent in place of max_tokens"
        yield "max_tokens", what, others | {"max_completion_tokens": values["max_tokens"]}
    if "temperature" in reason and "temperature" in values:
        others = {name: value for name, value in values.items() if name != "temperature"}
        yield "temperature", "temperature is left to the endpoint", others
    listed = values.get("top_logprobs", 0)
    if "logprobs" in reason and listed > FEWEST_LOGPROBS:
        allowed = [int(digits) for digits in re.findall(r"\d{1,3}", reason) if 1 < int(digits) < listed]
        fewer = max(allowed, default=FEWEST_LOGPROBS)
        yield "top_logprobs", f"only the {fewer} likeliest tokens are asked for", values | {"top_logprobs": fewer}
