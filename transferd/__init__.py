"""transferd: a wallet and money-transfer service."""

from importlib.metadata import version

from transferd import digits

__version__ = version("transferd")
# Whether mypyc has compiled the core of this process: `make compile`.
CORE = "interpreted" if digits.__file__.endswith(".py") else "compiled"
