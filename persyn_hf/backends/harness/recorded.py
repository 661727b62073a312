"""Score answers that were given elsewhere, which take the place of a model."""

from collections.abc import Sequence
from typing import Any

from persyn_hf.backends.harness.answers import Sheet, Spoken
from persyn_hf.backends.harness.work import Work
from persyn_hf.stage import Progress


def make_recorded(predictions: Sequence[str | Sequence[float]], sheet: Sheet, progress: Progress) -> Any:
    """Make a model of the harness that answers item i with `predictions[i]`.

    A prediction is a text or, for multiple choice, the log-likelihood of each choice.
    """
    from lm_eval.api.model import LM

    class Recorded(LM):
        what = ""

        def generate_until(self, requests: Any) -> list[Any]:
            def recall(asked: list[Any], _: Work) -> list[Spoken]:
                return [(str(predictions[request.doc_id]), True) for request in asked]

            return self._tell(requests, sheet.ask(requests, recall))

        def loglikelihood(self, requests: Any) -> list[Any]:
            return self._tell(requests, [(predictions[request.doc_id][request.idx], False) for request in requests])

        def loglikelihood_rolling(self, requests: Any) -> list[Any]:
            raise NotImplementedError

        def _tell(self, requests: Any, answers: list[Any]) -> list[Any]:
            progress.start(self.what, total=len(requests))
            progress.advance(len(requests))
            return answers

    return Recorded()
