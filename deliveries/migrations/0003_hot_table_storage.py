from django.db import migrations

# A request is rewritten twice on its way: claimed and settled. Room in its page keeps the
# new versions near the old, and a vacuum after every few thousand rows keeps the partial
# indexes of the claim as short as what is pending. Subscriptions are few and rewritten
# while they fail.
TUNE = """
ALTER TABLE webhook_requests SET (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE subscriptions SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
"""

RESET = """
ALTER TABLE webhook_requests RESET (
    fillfactor,
    autovacuum_vacuum_scale_factor,
    autovacuum_vacuum_threshold,
    autovacuum_vacuum_insert_scale_factor,
    autovacuum_analyze_scale_factor,
    autovacuum_vacuum_cost_delay
);
ALTER TABLE subscriptions RESET (fillfactor, autovacuum_vacuum_scale_factor);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0002_heartbeats"),
        ("subscriptions", "0002_circuit_rate_and_order"),
    ]

    operations = [migrations.RunSQL(TUNE, RESET)]
