"""Where bars and news come from: what a source must do (`source`), and the ones that ship.

`bundled` needs nothing, `folder` and `news_file` read what the user has. A source hands over whole
histories; the cut at `as_of` is made once, by `MarketView`.
"""
