#!/bin/sh
# Makes the secrets of docker-compose.yml, one a file, in ./secrets or the folder that is named. What
# is there already stays: to change a secret remove its file, and do what docs/containers.md says.
set -eu
folder=${1:-$(dirname "$0")/../secrets}
mkdir -p "$folder"
cd "$folder"
# The folder lets nobody else in. Its files are open, since a container's user has another number.
chmod 700 .
put() {
  [ -s "$1" ] || printf '%s' "$2" > "$1"
  chmod 444 "$1"
}
random() { openssl rand -hex 32; }

for name in postgres_superuser postgres_airflow postgres_mlflow postgres_finagent redis_password \
  s3_secret_key mlflow_password mlflow_secret_key airflow_password airflow_secret_key \
  airflow_jwt_secret finagent_api_token finagent_serve_token; do
  put "$name" "$(random)"
done
put s3_access_key "$(openssl rand -hex 10)"
# Airflow encrypts connections with it: 32 bytes in base64 for addresses.
put airflow_fernet_key "$(openssl rand -base64 32 | tr '+/' '-_')"

airflow="airflow:$(cat postgres_airflow)@postgres/airflow"
put airflow_database "postgresql+psycopg2://$airflow"
put celery_results "db+postgresql://$airflow"
put celery_broker "redis://:$(cat redis_password)@redis:6379/0"
put finagent_database "postgresql+psycopg2://finagent:$(cat postgres_finagent)@postgres/finagent"
