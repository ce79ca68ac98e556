"""Scripts of the worker process. It runs them by path, isolated; nothing else imports them."""
