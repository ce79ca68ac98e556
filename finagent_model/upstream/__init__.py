"""The public project `akshata29/finagent`: fetched at a pinned commit, never part of this code."""
