"""What a host can be asked, and the drivers that ask it."""
