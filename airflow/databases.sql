-- A role and what it owns for each service; nobody else may connect to it. Run by psql, once, when the
-- volume is new.
\set airflow_password `cat /run/secrets/postgres_airflow`
\set mlflow_password `cat /run/secrets/postgres_mlflow`
\set finagent_password `cat /run/secrets/postgres_finagent`
create role airflow login password :'airflow_password';
create role mlflow login password :'mlflow_password';
create role finagent login password :'finagent_password';
create database airflow owner airflow;
create database mlflow owner mlflow;
create database mlflow_auth owner mlflow;
create database finagent owner finagent;
revoke all on database airflow, mlflow, mlflow_auth, finagent, postgres from public;
