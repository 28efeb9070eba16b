"""Which subscriptions may be tried now, and how much: conditions and formulas in SQL.

Several statements need the same ones; in all of them `s` is the subscription's row.
"""

# Neither paused, nor disabled, nor, if ordered, blocked by a request that failed.
IS_UNHELD = """
    s.status = 'active' AND (NOT s.ordered OR s.blocked_until IS NULL OR s.blocked_until <= statement_timestamp())
"""

# A circuit that is open lets one call through when its time has come.
MAY_BE_TRIED = f"""
    {IS_UNHELD} AND (s.circuit_opened_at IS NULL OR s.circuit_probe_at <= statement_timestamp())
"""

# Who shares a worker's slots with others: its tenant, or the subscription itself if it has none.
CUSTOMER = "coalesce(nullif(s.tenant, ''), s.id::text)"

# What it may have in flight, less what it has; an expired lease does not count.
FREE_SLOTS = """
    CASE WHEN s.ordered OR s.circuit_opened_at IS NOT NULL THEN 1 ELSE s.max_in_flight END - (
        SELECT count(*)
        FROM webhook_requests AS leased
        WHERE leased.subscription_id = s.id
            AND leased.lease_token IS NOT NULL
            AND leased.next_attempt_at > statement_timestamp()
    )
"""

# A rate limit is a number of calls in a window: 2.5 a second are 2 in 0.8 seconds.
RATE_CALLS = "greatest(floor(s.rate_limit), 1)"
RATE_WINDOW = f"({RATE_CALLS} / s.rate_limit * interval '1 second')"
CALLS_IN_RATE_WINDOW = f"""
    unnest(s.rate_times, s.rate_counts) AS recent (at, calls)
    WHERE recent.at > statement_timestamp() - {RATE_WINDOW}
"""
