"""One run, from examples to a verdict: collecting, making, judging, and the `Loop` that ties them together."""
