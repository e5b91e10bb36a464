# SPDX-License-Identifier: Apache-2.0
"""How a case ends that does not end well."""


class Wrong(Exception):
    """The module did what it must not do."""


class Hang(BaseException):
    """A case took too long."""
