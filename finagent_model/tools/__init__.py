"""What a model may ask for beyond its question: a whitelist of pure functions of one view."""
