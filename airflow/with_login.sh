#!/bin/sh
# Runs MLflow's server so that it asks everybody for user and password; `/health` stays open.
set -eu
exec "$@" --app-name basic-auth
