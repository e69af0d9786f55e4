"""Caches between the steps of one sampling run: what changes little is stored or forecast instead of computed."""
