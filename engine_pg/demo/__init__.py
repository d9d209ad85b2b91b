"""Whole stacks on one machine: real processes, an API client, and stories about their failures."""
