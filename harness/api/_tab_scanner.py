"""Tabs where YAML 1.2 has them: ruamel.yaml refuses any tab outside quotes and brackets."""

from typing import Any

from ruamel.yaml.scanner import Scanner

_BLANK = " \t"
_BREAKS = "\r\n\x85\u2028\u2029"
_ENDS = "\0" + _BREAKS


class TabScanner(Scanner):
    """A scanner that takes tabs as white space, except where they would indent.

    Source:
        YAML 1.2.2, sections 6.1 (indentation is spaces alone), 6.2 (separation is spaces and tabs), 6.7 (comments).
    """

    def scan_to_next_token(self) -> None:
        """Skip white space, line breaks and comments up to a token."""
        super().scan_to_next_token()
        while not self.flow_level and self.reader.peek() == "\t" and (self._line_has_begun() or self._is_rest_blank()):
            if self._line_has_begun():
                self.allow_simple_key = False  # no block may begin behind a tab: its indentation would be unknown
            while self.reader.peek() in _BLANK:
                self.reader.forward()
            super().scan_to_next_token()

    def scan_plain_spaces(self, indent: int, start_mark: Any) -> list[str] | None:
        """What stands between two words of a plain scalar: white space as it is, a line break folded."""
        length = 0
        while self.reader.peek(length) in _BLANK:
            length += 1
        between = self.reader.prefix(length)
        self.reader.forward(length)
        if self.reader.peek() not in _BREAKS:
            return [between] if between else []
        first, further = self.scan_line_break(), []
        self.allow_simple_key = True
        while not self._ends_document():
            if self.reader.peek() in _BREAKS:
                further.append(self.scan_line_break())
            elif self.reader.peek() == " " or (self.reader.peek() == "\t" and self._may_pass(indent)):
                self.reader.forward()
            else:
                folded = [first] if first != "\n" else [" "] if not further else []
                return folded + further
        return None

    def scan_block_scalar_indicators(self, start_mark: Any) -> Any:
        """Whether a block scalar keeps its last line breaks, and how deep it says that it is indented."""
        keeps: bool | None = None
        depth: int | None = None
        length = 0
        # The two signs may come in either order, each once at most: `|2-` and `|-2` mean the same.
        while (sign := self.reader.peek(length)) in "+-123456789" and sign != "\0" and length < 2:
            if sign in "+-" and keeps is None:
                keeps = sign == "+"
            elif sign.isdigit() and depth is None:
                depth = int(sign)
            else:
                break
            length += 1
        # Without a tab behind them ruamel.yaml does all this itself, and its errors are better.
        if self.reader.peek(length) != "\t":
            return super().scan_block_scalar_indicators(start_mark)
        self.reader.forward(length)
        return keeps, depth

    def scan_block_scalar_ignored_line(self, start_mark: Any) -> Any:
        """What follows the sign of a block scalar: white space and a comment."""
        while self.reader.peek() in _BLANK:
            self.reader.forward()
        return super().scan_block_scalar_ignored_line(start_mark)

    def _may_pass(self, indent: int) -> bool:
        """Whether a tab at the begin of a further line separates, and does not indent."""
        return self.flow_level > 0 or self.reader.column >= indent or self._is_rest_blank()

    def _ends_document(self) -> bool:
        # `---` or `...` at the begin of a line ends the document even inside a scalar.
        at_begin = self.reader.column == 0 and self.reader.prefix(3) in ("---", "...")
        return at_begin and self.reader.peek(3) in _ENDS + _BLANK

    def _line_has_begun(self) -> bool:
        """Whether anything but white space stands before this place in its line."""
        place = self.reader.pointer
        return bool(self.reader.buffer[place - self.reader.column : place].strip(_BLANK))

    def _is_rest_blank(self) -> bool:
        """Whether nothing but white space, or a comment, follows in this line."""
        length = 0
        while self.reader.peek(length) in _BLANK:
            length += 1
        return self.reader.peek(length) in _ENDS + "#"
