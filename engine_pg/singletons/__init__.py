"""What one node does for all: host monitoring by partitions, adoption, retention."""
