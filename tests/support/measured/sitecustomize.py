"""Has coverage measure native threads where eventlet has patched the others. `make coverage` puts it on the path.

eventlet loads the module `threading` a second time for them, where coverage has set no trace function.
"""

import sys
import threading
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location


class _Loader(SourceFileLoader):
    def exec_module(self, module):
        super().exec_module(module)
        module.settrace(threading.gettrace())


class _Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None) -> ModuleSpec | None:
        if name != "threading":
            return None
        return spec_from_file_location(name, threading.__file__, loader=_Loader(name, threading.__file__))


sys.meta_path.insert(0, _Finder())
