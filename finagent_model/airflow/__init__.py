"""What Airflow needs of this package: the work of the DAG's tasks, and a trigger."""
