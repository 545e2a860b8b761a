"""Prints the catalog that the installed library asks for."""

import sys

from yapit_plugin_espeak import library
from yapit_plugin_espeak.listing import render

if __name__ == "__main__":
    sys.stdout.write(render(library.load()))
