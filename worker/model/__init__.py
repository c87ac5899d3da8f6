"""The words of the domain: pure data and decisions about it, no I/O."""
