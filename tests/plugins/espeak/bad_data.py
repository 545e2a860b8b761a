"""Loads the library from a place that does not exist and with data that is none; prints both errors."""

import sys

from yapit import LoadError
from yapit_plugin_espeak import library


def main() -> None:
    for arguments in ({"library_path": "/nowhere/libespeak-ng.so"}, {"data_path": sys.argv[1]}):
        try:
            library.load(**arguments)
        except LoadError as error:
            sys.stdout.write(f"{error}\n")


if __name__ == "__main__":
    main()
