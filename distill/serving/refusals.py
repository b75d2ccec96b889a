"""Requests that are not answered: a status, and a message that every client finds where it looks for it."""

from typing import Any

KINDS = {  # status: error_type, with the names of text-embeddings-inference
    401: "Unauthorized",
    404: "NotFound",
    405: "NotFound",
    408: "Timeout",
    500: "Backend",
    503: "Overloaded",
}


class Refused(Exception):
    """A request that is answered with an error status and one line: the reason and the remedy."""

    def __init__(self, status: int, message: str):
        """Take both."""
        super().__init__(message)
        self.status, self.message = status, message


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return an error's JSON. Clients of text-embeddings-inference read error, of Cohere message, of Jina detail."""
    return {"error": message, "error_type": KINDS.get(status, "Validation"), "message": message, "detail": message}
