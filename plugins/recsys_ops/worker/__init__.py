"""The job that runs on the training machine: a spec in, a model version out; no Airflow."""
