"""Reports: one self-contained HTML page from a fidelity record.

`page.render` makes it; it works offline, prints, follows the reader's light or dark setting, and asks the network for
nothing. Figures draw what the record holds and compute no statistic; every statistic belongs to `fidelity`.
"""
