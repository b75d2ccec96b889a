"""Whether a progress bar is shown."""


def silent(long: bool) -> bool | None:
    """Value for tqdm's `disable`: True for short work; None (tqdm's word for "unless a terminal") for long work."""
    return None if long else True
