"""The market simulator: a matching engine, the order flow that feeds it, and the venue that publishes it.

Here belongs what makes and matches orders. What a simulated market is used for (datasets, scores) does not: outside, it
is one more venue, and its frames go through the same recorder, parser and tables as any other's.
"""
