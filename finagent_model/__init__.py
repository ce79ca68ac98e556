"""A multi-agent trading decision that is one versioned MLflow model.

Importing this package, or any module in it, reads no environment, opens no connection and writes
nothing.
"""

__version__ = "0.1.0"
