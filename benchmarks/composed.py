"""Configurations of the commands, for benchmarks that call what is behind a command.

    cfg = compose_config("train", ["loss=adrmse", "seed=1"])

Hydra is imported by the call, so that the benchmarks can be imported where it is not installed.
"""

from benchmarks.report import ROOT


def compose_config(name: str, overrides: list[str]):
    """Return conf/NAME.yaml with overrides, as the command composes it; interpolations are not resolved yet."""
    from hydra import compose, initialize_config_dir

    from distill.config.composition import register_schemas

    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, overrides=overrides)
