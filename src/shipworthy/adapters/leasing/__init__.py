"""Leases: a worker's share of budgets and limits, spent in memory."""
