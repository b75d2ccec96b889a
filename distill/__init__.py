"""Distil the rankings of slow teachers into fast cross-encoders for passage re-ranking."""

__version__ = "0.1.0"
__all__ = ["CrossEncoder"]


def __getattr__(name: str):
    """Import the model on first use, so that `import distill` stays as cheap as `import torch`."""
    if name == "CrossEncoder":
        from distill.models.cross_encoder import CrossEncoder

        return CrossEncoder
    raise AttributeError(f"module 'distill' has no attribute {name!r}")
