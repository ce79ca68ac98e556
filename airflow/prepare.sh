#!/bin/sh
# Before Airflow's parts start: tables at their newest revision, and the file that the API server
# compares passwords with.
set -eu
umask 077
python - <<'PY'
import json, os
users = {os.environ["AIRFLOW_USER"]: os.environ["AIRFLOW_PASSWORD"]}
with open(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"], "w") as file:
    json.dump(users, file)
PY
airflow db migrate
finagent db upgrade
