"""Faults on purpose against real processes, and checkers that judge the recorded history."""
