"""An active/active virtualization engine whose coordination goes through PostgreSQL."""

from importlib.metadata import version

__version__ = version("engine-pg")
