"""How fast it is: each benchmark compares with what one would write without the engine.

Numbers of one machine tell little; ratios of two things measured in turn, in one run, tell more.
"""
