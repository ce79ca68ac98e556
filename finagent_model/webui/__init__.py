"""Pages to look at signals, versions and runs with: made by the server, asking nobody else."""
