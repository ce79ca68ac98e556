"""Scripts that `MLproject` runs, each one command of `finagent`."""
