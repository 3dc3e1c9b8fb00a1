"""Questions of the example about Python's standard library."""

from __future__ import annotations

# (id, question). Some questions use other words than the documentation; the example shows how the model matches them.
QUESTIONS: tuple[tuple[str, str], ...] = (
    ("copy-file", "how do I copy a file"),
    ("delete-folder", "delete a folder and everything in it"),
    ("file-exists", "check whether a file exists"),
    ("temporary-file", "create a temporary file that is removed when closed"),
    ("compress", "compress data to save space"),
    ("zip-extract", "unpack all files of a zip archive"),
    ("csv-rows", "read rows of a spreadsheet as dictionaries"),
    ("parse-json", "turn a JSON string into Python objects"),
    ("random-choice", "pick a random element of a list"),
    ("shuffle", "mix up the order of a list"),
    ("average", "how do I compute the average of numbers"),
    ("median", "find the middle value of sorted data"),
    ("square-root", "what is the square root of a number"),
    ("greatest-divisor", "largest number that divides two integers"),
    ("split-text", "break a string into words"),
    ("replace-text", "replace every match of a pattern in a text"),
    ("upper-case", "write all letters in capitals"),
    ("wrap-text", "fold long lines of text to a given width"),
    ("similar-words", "find words that are spelled almost the same"),
    ("parse-date", "how do I convert a string to a date"),
    ("sleep", "wait for some seconds before going on"),
    ("measure-time", "measure how long a piece of code takes"),
    ("count-items", "count how often each item occurs"),
    ("heap-smallest", "get the smallest items without sorting everything"),
    ("binary-search", "find the position where a value belongs in a sorted list"),
    ("combinations", "all ways to choose some elements of a sequence"),
    ("cache-results", "remember the results of a function so it is not computed twice"),
    ("start-thread", "run a function at the same time in another thread"),
    ("run-program", "start another program and get its output"),
    ("hash-password", "make a secure random token for a password reset"),
    ("fetch-address", "split a web address into its parts"),
    ("log-error", "write an error message with its traceback to the log"),
)
