"""The error that a user's input can cause: it names file, row and field; command lines end with exit code 2."""

from __future__ import annotations

from os import PathLike


class InputError(ValueError):
    """Something is wrong with a file or an option that the user gave.

    The text reads `FILE, row R, field F: PROBLEM; expected EXPECTED`, with the parts that are known.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | PathLike[str] | None = None,
        row: int | None = None,
        field: str | None = None,
        expected: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.row = None if row is None else int(row)
        self.field = field
        self.expected = expected
        place = [self.file] if self.file else []
        if row is not None:
            place.append(f"row {row}")
        if field is not None:
            place.append(f"field {field!r}")
        text = f"{', '.join(place)}: {problem}" if place else problem
        super().__init__(f"{text}; expected {expected}" if expected else text)

    def __reduce__(self):  # Beam carries exceptions between processes by pickle
        return _rebuild, (self.problem, self.file, self.row, self.field, self.expected)


def _rebuild(problem, file, row, field, expected) -> InputError:
    return InputError(problem, file=file, row=row, field=field, expected=expected)
