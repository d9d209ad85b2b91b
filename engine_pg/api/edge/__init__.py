"""What every request passes through before anybody asks what it wants: one thing per middleware."""
