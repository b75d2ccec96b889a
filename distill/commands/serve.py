"""Serve a re-ranker over HTTP, for clients of text-embeddings-inference, Jina, Cohere and vLLM.

    python -m distill serve model=outputs/DATE/TIME/model port=8000
    curl localhost:8000/rerank -d '{"query": "...", "documents": ["...", "..."]}'

docs/serving.md has the forms of requests, the limits, and what to mind behind a proxy.
"""

import importlib
import logging

import hydra
from omegaconf import DictConfig, OmegaConf

from distill.config.checks import check_values
from distill.config.composition import ROOT
from distill.errors import InputError, exit_on_bad_input

log = logging.getLogger("serve")

PACKAGES = ("starlette", "uvicorn", "prometheus_client")


def serve(cfg: DictConfig) -> None:
    """Serve as configured, until the process is stopped; raises InputError for bad input."""
    check_packages()
    from distill.config.command_schema import ServeConfig
    from distill.serving.server import serve as run_server
    from distill.teachers.endpoint_key import read_key

    key = read_key(cfg.api_key_variable, "api_key_variable")
    plain = OmegaConf.to_object(cfg)
    assert isinstance(plain, ServeConfig)
    run_server(plain, key, lambda address: log.info("listening on %s%s", address, "" if key else ", without a key"))


def check_packages() -> None:
    """Raise InputError if a package that only this command needs is missing."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            raise InputError(
                f"serve needs {name}, which is not installed: pip install starlette uvicorn prometheus-client"
            ) from None


@hydra.main(config_path=str(ROOT / "conf"), config_name="serve", version_base="1.3")
def run(cfg: DictConfig) -> None:
    """Serve; bad input ends with a one-line message and exit status 2."""
    with exit_on_bad_input(sweep=False):
        check_values(cfg)
        log.info("serving %s", cfg.model)
        serve(cfg)
