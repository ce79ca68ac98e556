"""The package: what a registered version holds, how it is written, checked, loaded and asked."""
