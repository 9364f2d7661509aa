"""Descriptors turned back into the text of their .proto file: the inverse of protoc.

What is printed compiles to equal descriptors again, with the same comments at the same elements.
From the ground up: ``literals`` writes values; ``source`` knows where elements stood and what was
said of them, ``writer`` lays them out and ``order`` arranges them; ``names`` calls types and
options so that they are found from a ``scope``; ``options`` and ``fields`` are parts of statements,
``bodies`` what all elements have alike; ``enums`` and ``printer`` have one method for each element,
and ``text`` is what is called.
"""

from .text import file_text, symbol_text

__all__ = ["file_text", "symbol_text"]
