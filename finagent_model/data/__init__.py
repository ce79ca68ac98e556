"""Where bars, news and fundamentals come from: what a source must do (`source`), the ones that
ship, and how the environment names them (`named`).

A source hands over whole histories; the cut at `as_of` is made once, by `MarketView`. Bars that
came from elsewhere than this machine are kept (`fetched`, `kept`).
"""
