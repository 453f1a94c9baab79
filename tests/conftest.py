"""What every test starts from: nobody's own settings, an empty cache, one thread, no compiler, steady examples."""

import os
import tempfile

from hypothesis import settings

for variable in [name for name in os.environ if name.startswith("ATTNLANG_")]:
    del os.environ[variable]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["ATTNLANG_TARGET"] = (
    "eager"  # tests that want a kernel say so: most are about what a pattern means
)
_cache = tempfile.TemporaryDirectory(prefix="attnlang-tests-")
os.environ["ATTNLANG_CACHE_DIR"] = _cache.name

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
