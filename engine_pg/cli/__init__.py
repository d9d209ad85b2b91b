"""The command line: it reads options, prints and exits; what it does lives below it."""
