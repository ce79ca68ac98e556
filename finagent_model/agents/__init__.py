"""The agents. AutoGen is imported in this folder and nowhere else."""
