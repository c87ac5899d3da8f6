"""Outgoing requests: connections, allowed addresses, redaction, signatures."""
