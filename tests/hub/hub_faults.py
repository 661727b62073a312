"""What goes wrong on demand, and what was asked of the server."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple


# The Hub's own words where its clients show or read them.
MESSAGES = {
    401: "Invalid username or password.",
    403: "Forbidden",
    404: "Not Found",
    409: "Cannot create repo: another conflicting operation is in progress",
    412: "A commit has happened since. Please refresh and try again.",
    429: "We had to rate limit you. To continue using our service, please log in or create a HF account.",
    500: "Internal Error - We're working hard to fix this as soon as possible!",
    503: "Service Temporarily Unavailable",
}


@dataclass
class Fault:
    """What the next `times` requests get that match method and path; then it leaves the list of faults.

    Without `status` and `cut` the answer is the true one, only late.
    """

    method: str
    path_pattern: str  # a regular expression, searched for in the path without its quotes and query
    status: int | None = None
    times: int = 1
    after: bool = False  # the work is done before things go wrong
    retry_after: int | None = None  # seconds
    message: str | None = None  # of the error, where it is not the Hub's usual one
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # bytes of the upload, or else of the answer, after which the connection ends
    delay_s: float = 0.0

    def matches(self, method: str, path: str) -> bool:
        return method == self.method and re.search(self.path_pattern, path) is not None


class Seen(NamedTuple):
    """One request. Its status is None where the connection was cut."""

    method: str
    path: str
    status: int | None
    user: str | None
