"""What runs in the worker's own process. It starts as a script, isolated from the environment:
nothing here imports this package, and the package imports nothing of it.
"""
