# `. docs/tutorial/env.sh` in the project's folder, in every terminal.
# Sets the shop's servers and an Airflow of its own.
export SHOP=${SHOP:-$HOME/online-retail}
export RECSYS_INCLUDE=$SHOP/include
export RECSYS_STORAGE__ROOT=file://$SHOP/blob

# The production database and the Redis that the shop reads: those of servers.py, or your own.
export SHOP_REDIS_PORT=6390
export SHOP_DATABASE="host=$SHOP/postgres user=postgres dbname=shop"
AIRFLOW_CONN_RECSYS_DB="{\"conn_type\": \"postgres\", \"login\": \"postgres\","
AIRFLOW_CONN_RECSYS_DB+=" \"host\": \"$SHOP/postgres\", \"schema\": \"shop\"}"
AIRFLOW_CONN_RECSYS_REDIS="{\"conn_type\": \"redis\", \"host\": \"127.0.0.1\","
AIRFLOW_CONN_RECSYS_REDIS+=" \"port\": $SHOP_REDIS_PORT}"
export AIRFLOW_CONN_RECSYS_DB AIRFLOW_CONN_RECSYS_REDIS

export AIRFLOW_HOME=$SHOP/airflow
# Airflow's own database: SQLite, the default, is locked when a backfill and the scheduler write.
export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg://postgres@/airflow?host=$SHOP/postgres"
export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC=$AIRFLOW__DATABASE__SQL_ALCHEMY_CONN
export AIRFLOW__CORE__DAGS_FOLDER=$PWD/dags
export AIRFLOW__CORE__PLUGINS_FOLDER=$PWD/plugins
export AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__PARALLELISM=4
export AIRFLOW__API__HOST=127.0.0.1
export AIRFLOW__API__PORT=${AIRFLOW__API__PORT:-8080}
export AIRFLOW__API__BASE_URL=http://127.0.0.1:$AIRFLOW__API__PORT
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:$AIRFLOW__API__PORT/execution/
export AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME=0.3
export PATH=$PWD/.venv/bin:$PATH PYTHONPATH=$PWD/plugins PYTHONWARNINGS=ignore
