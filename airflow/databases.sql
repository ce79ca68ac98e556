-- Beside POSTGRES_DB, which is the artifacts'. Run once, when the volume is new.
create database airflow;
create database mlflow;
