"""Which host a VM runs on."""
