"""XLSX, one workbook a path: `synthetic_1_batch_<id>.xlsx`, …; more than 1,048,575 rows go on in further sheets.

Sheets are `1`, `2`, …, each with the header. Times are Excel dates in UTC; numbers have 16 digits and show the decimals
of their grid. Rows go through a temporary file beside the result, so that memory stays constant. The limit:
https://support.microsoft.com/en-us/office/excel-specifications-and-limits-1672b34d-7043-467e-8e27-269d656771c3
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from synth_pipeline.schema import NS_PER_DAY
from synth_pipeline.synthesis.dataset import Rows
from synth_pipeline.synthesis.exports import Export, Source
from synth_pipeline.synthesis.exports.sheet import Column, Sheet

if TYPE_CHECKING:
    from xlsxwriter import Workbook
    from xlsxwriter.worksheet import Worksheet

SHEET_ROWS = 1_048_576
"""Rows of a sheet, its header among them."""
_DAYS_TO_1970 = 25_569
"""Excel's number of 1970-01-01: it counts 1900-01-01 as 1, and a 29th of February 1900."""
_STAMP = datetime(2000, 1, 1)
_DATE_WIDTH, _WIDTH = 24, 12


class Xlsx(Export):
    """Workbooks for Excel and its like."""

    suffix: ClassVar = ".xlsx"
    is_folder: ClassVar = True

    def write(self, source: Source, place: Path) -> None:
        """Write the files."""
        sheet = Sheet(source)
        for path, pieces in source.by_path():
            write_workbook(place / source.file_name(path, self.suffix), sheet, pieces)


def write_workbook(path: Path, sheet: Sheet, pieces: Iterable[Rows]) -> None:
    """Write one path. Raises `OSError` where that fails."""
    from xlsxwriter import Workbook
    from xlsxwriter.exceptions import FileCreateError

    book = Workbook(path, {"constant_memory": True, "tmpdir": str(path.parent)})
    book.use_zip64()
    book.set_properties({"created": _STAMP})  # the same content is the same file
    formats = [book.add_format({"num_format": form}) for form in (_date_form(sheet), *map(_form, sheet.columns))]
    names = [sheet.time_headers[0], *(column.header for column in sheet.columns)]
    _fill(book, names, formats, [column.at for column in sheet.columns], pieces)
    try:
        book.close()
    except FileCreateError as error:
        raise error.args[0] from error


def _fill(book: Workbook, names: list[str], formats: list[Any], order: list[int], pieces: Iterable[Rows]) -> None:
    page, at = _page(book, names, formats), 1
    for rows in pieces:
        days = rows.label_ns / NS_PER_DAY + _DAYS_TO_1970
        for line in np.column_stack((days, rows.values[:, order])).tolist():
            if at == SHEET_ROWS:
                page, at = _page(book, names, formats), 1
            for number, value in enumerate(line):
                if value == value:  # NaN is an empty cell
                    page.write_number(at, number, value)
            at += 1


def _page(book: Workbook, names: list[str], formats: list[Any]) -> Worksheet:
    """Begin a sheet."""
    page = book.add_worksheet(str(len(book.worksheets()) + 1))
    for number, each in enumerate(formats):
        page.set_column(number, number, _WIDTH if number else _DATE_WIDTH, each)
    page.freeze_panes(1, 0)
    for number, name in enumerate(names):
        page.write_string(0, number, name)
    return page


def _date_form(sheet: Sheet) -> str:
    if sheet.has_days_only:
        return "yyyy-mm-dd"
    return "yyyy-mm-dd hh:mm:ss" + (".000" if sheet.time_decimals else "")


def _form(column: Column) -> str:
    if column.decimals is None:
        return "General"
    return "0" + ("." + "0" * column.decimals if column.decimals else "")
