"""Judge answers by a model that is asked: the rubric, the question, the verdict, and what a panel makes of it."""
