"""transferd: a wallet and money-transfer service."""

from importlib.metadata import version

__version__ = version("transferd")
