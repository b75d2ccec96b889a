"""The one error class for what a user can cause and mend."""


class InputError(ValueError):
    """Bad input: its message is one line with the place, the reason and the remedy.

    The entry points print the message without a traceback and exit with status 2.
    """
