"""Closed-loop evaluation, its statistics, pages and videos."""
