"""Fields' own checks for what options say and users type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import PydanticCustomError

from piimage.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def checked(check: Callable[[Any], T], option: str = "") -> Callable[[Any], T]:
    """The check of a field, with findings as `ConfigError` that name the `option`, if there is one."""
    before = f"{option}: " if option else ""

    def ours(value: Any) -> T:  # noqa: ANN401 -- whatever the field takes
        try:
            return check(value)
        except PydanticCustomError as error:
            words = error.context or {}
            raise ConfigError(f"{before}{words['message']}", hint=words["hint"]) from None

    return ours
