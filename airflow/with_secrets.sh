#!/bin/sh
# Runs a command whose program takes secrets from variables alone: where NAME_FILE names a file below
# /run/secrets, NAME gets its content. What finagent reads it reads from the file itself.
set -eu
for name in $(env | sed -n 's|^\([A-Z][A-Z0-9_]*\)_FILE=/run/secrets/.*|\1|p'); do
  case $name in FINAGENT_*) continue ;; esac
  file=$(printenv "${name}_FILE")
  value=$(cat "$file")
  export "$name=$value"
  unset "${name}_FILE"
done
exec "$@"
