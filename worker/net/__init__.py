"""How requests leave: connections, which addresses they may reach, what is redacted, signatures."""
