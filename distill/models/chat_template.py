"""Chat templates of models, rendered in another process that has little memory and little time.

    text = render_chat(tokenizer, [{"role": "user", "content": "..."}], "Qwen/Qwen3-0.6B", add_generation_prompt=True)

A chat template is a program that comes with a model. transformers renders it in a sandbox that keeps it from files and
from Python, but not from loops without end or from texts of any size, and neither can be interrupted in the same
process. So one process does nothing else, with limits: it imports transformers (a second), renders with its functions,
and is started anew after a template that it had to be killed for. It gets no variables of the environment that could
hold a secret.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from typing import Any

from distill.errors import InputError

MAX_SECONDS = 5.0  # of one rendering, which takes a millisecond
MAX_MEMORY = 2**28  # bytes that a template may use
MAX_CHARACTERS = 10**7  # that it may write: more than any model reads
START_SECONDS = 60.0  # to import transformers on a busy machine
KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TZ", "HOME")  # of the environment; templates may print the time
MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from distill.models.chat_template import serve; serve()"
)


class TemplateRefusal(InputError):
    """A template raised an error, as many do for a role that they do not know."""


def render_chat(
    tokenizer, messages: list[dict[str, str]], name: object, *, add_generation_prompt: bool = False, **variables
) -> str:
    """Return what `tokenizer.apply_chat_template(messages, tokenize=False)` returns.

    name: of the model, for errors. variables: more of them for the template, such as enable_thinking.
    Raises TemplateRefusal for a template that raises an error or cannot be read, InputError for one that needs more
    than MAX_SECONDS or MAX_MEMORY.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    if not isinstance(template, str):
        raise TemplateRefusal(f"{name}: has no chat template, or several of which none is named default: name one so")
    variables = {**tokenizer.special_tokens_map, **variables, "add_generation_prompt": add_generation_prompt}
    answer = _PROCESS.ask({"chat_template": template, "conversations": [messages], **variables})
    if answer is None:
        raise InputError(
            f"{name}: its chat template takes more than {MAX_SECONDS:g} s or {MAX_MEMORY >> 20} MB: use a model with "
            "another template"
        )
    if "error" in answer:
        raise TemplateRefusal(f"{name}: its chat template fails ({answer['error'][:200]})")
    return answer["text"]


class _Process:
    """The process that renders; started by the first request, and by the first after one that it did not survive."""

    def __init__(self):
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.owner = 0  # a fork of this process must not use its pipes

    def ask(self, request: dict[str, Any]) -> dict[str, str] | None:
        """Return {"text": ...} or {"error": ...}; None if there was no answer within the limits."""
        line = json.dumps(request) + "\n"
        with self.lock:
            if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
                self._start()
            answer = self._exchange(line, MAX_SECONDS)
        return None if answer is None else json.loads(answer)

    def _start(self) -> None:
        path = json.dumps([os.path.abspath(folder) for folder in sys.path])
        if self.owner != os.getpid():
            self.owner = os.getpid()
            atexit.register(self._stop)
        else:
            self._stop()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", MAIN, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="ascii",
            env={name: os.environ[name] for name in KEPT if name in os.environ},
            start_new_session=True,  # Ctrl-C in a terminal is for the process that started it
        )  # fmt: skip
        if self._exchange("", START_SECONDS) is None:
            raise InputError("chat templates cannot be rendered: a Python that imports transformers does not start")

    def _stop(self) -> None:
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.wait()

    def _exchange(self, line: str, seconds: float) -> str | None:
        """Send a line and return the answer; end the process, and return None, if there is none in time."""
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        except BaseException:  # Ctrl-C: its answer must not be taken for that of the next request
            process.kill()
            raise
        finally:
            timer.cancel()
        if answer.endswith("\n"):
            return answer
        self._stop()
        return None


_PROCESS = _Process()


def serve() -> None:
    """Render what comes in, a line of JSON each, until the other process ends."""
    from transformers.utils.chat_template_utils import render_jinja_template

    answers, sys.stdout = sys.stdout, sys.stderr
    _limit_memory()
    print(file=answers, flush=True)
    for line in sys.stdin:
        try:
            request = json.loads(line)
            del line
            (text,), _ = render_jinja_template(**request)
            answer = {"text": text} if len(text) <= MAX_CHARACTERS else {"error": f"writes {len(text)} characters"}
            del text
        except MemoryError:
            os._exit(1)  # what is left of the memory may not hold an answer
        except Exception as error:  # a template may raise anything
            answer = {"error": f"{type(error).__name__}: {error}"[:1000]}
        print(json.dumps(answer), file=answers, flush=True)


def _limit_memory() -> None:
    """Let this process have MAX_MEMORY more than it has, where the system can count it."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    allowed = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = used + MAX_MEMORY if allowed == resource.RLIM_INFINITY else min(used + MAX_MEMORY, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
